"""Answers that nobody has thought of: valid ones, mutated; against the client's pure functions and over sockets.

`python -m tests.fuzz --cases 1000000 --seed 1` is the soak; `tests/test_fuzz.py` is CI's share. What must hold: nothing
is raised but the documented errors, nothing counts as applied that an independent reference does not call a success,
nothing lasts longer than the deadline.

`python -m tests.fuzz --webhooks 1000000 --seed 1` does the same with webhook calls: the verifier must judge each as an
independent reference does.
"""
