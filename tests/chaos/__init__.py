"""The proof of the workers: killed, stopped, without their engine's tables or their database, in the middle of a batch.

    python -m tests.chaos [--commands N] [--kills N] [--storms N] [--freezes N] [--stops N] [--drops N] [--crashes N]

Two real worker processes, woken by Procrastinate, carry a batch out on a real PostgreSQL against a stand-in in a
process of its own, which answers late, so that there are always commands in the air. What came of it is judged by what
the product does not write: the stand-in's ledger, raw SQL, and the reader of the trail in `tests.trail`.
"""
