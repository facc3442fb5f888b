"""Benchmarks: acorn's speed compared with the limits of this machine, and with other programs at the same time.

Run `make bench` or `python -m benchmarks`. Each contender is a process (`contenders/`). All are started before the
first measurement, and they take turns, so that a temporary slowdown of the machine affects all of them. Nothing is
imported here, because some contenders run in environments without the others' packages.
"""
