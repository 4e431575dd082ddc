"""Every fault at every point for every command, and pairs of a fault and a second one while recovery mends the first.

`python -m tests.exhaustive --pairs 20000 --seed 1 --processes 2` is the soak; `tests/test_exhaustive.py` is CI's share.
The stand-in is real HTTP on loopback, the database a real SQLite file; only time is skipped instead of waited for.
"""
