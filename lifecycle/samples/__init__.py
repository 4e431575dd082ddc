"""Samples: a simulated practice group's appointments, so that people see histories, reports and pages in a minute.

`filling.fill` fills a database of its own: by the real engine (`playing`), or by writing down what the engine would
have written (`bulk`). Both follow the same plans (`practice`, `drawing`, `plans`). No patient occurs in them.
"""
