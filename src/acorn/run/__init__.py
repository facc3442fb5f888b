"""The life of a run: start, text, resolved settings, resume, finish. Also what is built on runs: plans and sweeps."""
