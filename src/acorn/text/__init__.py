"""Sources of text -> documents, split into training, validation and test. Start with `splits.py`.

Sources of rows -> examples of a task, split likewise: `example_splits.py`.
"""
