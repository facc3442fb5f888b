"""Attempts to make acorn lose a run: kills, signals, failing disks, power losses, corruption.

Short forms are part of the tests; `make torture` runs the full ones and prints a table of the results.
"""
