"""The life of a run: start, text, settings resolved, resume, finish; and what is made of runs: plans, sweeps."""
