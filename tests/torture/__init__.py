"""Attempts to make acorn lose a run: kills, signals, failing disks, power losses, corruption.

Short forms run with the tests; `make torture` runs the full ones and prints a table of what was done.
"""
