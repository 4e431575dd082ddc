"""The page in a real Chromium.

A plain `pytest` leaves these out: `pytest tests/browser` needs the extra `browser` and Debian's `chromium` and
`chromium-driver`, which `.ci/run` installs.
"""
