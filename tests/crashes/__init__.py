"""The crash proof: processes that are killed or stopped and databases that go away, with everything else real.

    python -m tests.crashes [--kills N] [--stops N] [--seconds S] [--only PART ...] [--seed N]

Each part breaks the product for real (SIGKILL, SIGSTOP, a cut write-ahead log, `pg_ctl stop -m immediate`, a cut
connection, a full disk), and then judges by what the product does not write: the stand-in's ledger, raw SQL, and the
reader of the trail in `tests.trail`.
"""
