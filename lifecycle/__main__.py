"""`python -m lifecycle`: the command line."""

from lifecycle.cli.main import run

run()
