"""Training: the loop, the optimizer step, and what protects a run."""
