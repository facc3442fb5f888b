"""The programs that are compared, one file each. Every file is a process that `benchmarks.turns` starts."""
