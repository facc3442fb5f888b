"""Text out of a model: which token comes next, and how it becomes text."""
