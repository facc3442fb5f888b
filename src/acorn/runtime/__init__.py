"""The machine that acorn runs on: devices, precision, memory, limits."""
