"""What libraries say where the Hugging Face Hub does not give something, for messages of ours."""

from __future__ import annotations


def one_line(error: Exception) -> str:
    """What a library said, for a message of ours."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def why_not_reached(error: Exception) -> tuple[str, str]:
    """What kept a library from the Hub, and what to do first: the user may have forbidden to ask."""
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return "HF_HUB_OFFLINE is set, and this machine's cache has no copy", "set HF_HUB_OFFLINE=0 for this command"
    return one_line(error).rstrip("."), "check the network"
