"""Sources of text -> documents of the training, validation and test splits. Start reading with `splits.py`.

Sources of rows -> examples of a task, also in splits: `example_splits.py`.
"""
