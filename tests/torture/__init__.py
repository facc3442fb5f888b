"""Attempts to make acorn lose a run, and its server fail: kills, signals, failing disks, power losses, wrong requests.

Short forms are part of the tests; `make torture` runs the full ones and prints a table of the results.
"""
