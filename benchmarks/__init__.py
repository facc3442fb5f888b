"""How fast acorn is here: against this machine's own limits, and against other programs in the same minutes.

`make bench`, or `python -m benchmarks`. Each contender is a process of its own (`contenders/`), all are started before
the first measurement, and they take turns: what slows the machine down for a while slows all of them down. Nothing is
imported here, because some contenders run in environments that lack the others' packages.
"""
