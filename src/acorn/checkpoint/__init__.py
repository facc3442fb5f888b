"""Folders that hold a model: resumable checkpoints, the Hugging Face folder, their checks, and loading either."""
