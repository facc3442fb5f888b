"""Training: everything that moves parameters."""
