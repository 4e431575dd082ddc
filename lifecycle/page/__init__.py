"""The page for analysts: the report's pictures live, the events, one appointment's story. It only reads.

Needs the extra `web`: pip install 'zocdoc-lifecycle[web]'.
"""
