"""A deterministic simulator of the product under faults, and an independent checker of what came of it.

`python -m tests.simulation --commands 2000 --seed 1` runs it. Everything that could differ between two runs (time, ids,
the order of the workers, Zocdoc itself) is drawn from the seed. What it proves, it proves against our model of Zocdoc.
"""
