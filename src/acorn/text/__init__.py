"""Sources of text -> documents, split into training, validation and test. Start with `splits.py`."""
