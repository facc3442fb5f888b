"""Model folders: resumable checkpoints and Hugging Face folders, their checks, and loading."""
