"""What libraries report when the Hugging Face Hub cannot be reached, for acorn's messages."""

from __future__ import annotations


def one_line(error: Exception) -> str:
    """A library's error message on one line, for a message of acorn."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def why_not_reached(error: Exception) -> tuple[str, str]:
    """Why a library could not reach the Hub, and what to do first: the user may have set offline mode."""
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return "HF_HUB_OFFLINE is set, and this machine's cache has no copy", "set HF_HUB_OFFLINE=0 for this command"
    return one_line(error).rstrip("."), "check the network"
