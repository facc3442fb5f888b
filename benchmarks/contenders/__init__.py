"""The programs that are compared, one module each. `benchmarks.turns` runs each module as a process."""
