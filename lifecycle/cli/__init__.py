"""The command line: each command parses, calls one library function, and prints.

Data goes to stdout, words to stderr. Exit codes: 0 done, 1 failure, 2 usage or settings, 3 refused, 4 not found,
5 remote failure or unknown outcome, 6 audit trail broken, 130 interrupted. At import these modules load nothing but
click, so that `--help` answers at once; the library is loaded when a command runs.
"""
