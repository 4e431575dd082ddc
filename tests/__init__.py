"""The tests, and the programs that prove reliability: simulation, crashes, exhaustive, fuzz."""
