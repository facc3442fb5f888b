"""The names of an evaluation's figures in the terminal, the report and the model card, and which text they are of.

The keys are those of `acorn evaluate --json`.
"""

from __future__ import annotations

MEASURED = {
    "bits_per_byte": "Bits per byte",
    "loss_per_token": "Loss (nats per token)",
    "perplexity_per_token": "Perplexity per token",
    "word_perplexity": "Word perplexity",
}
"""Figures of a model on a text."""

COUNTED = {
    "documents": "Documents",
    "tokens": "Tokens (separators included)",
    "bytes": "Bytes of original text",
    "words": "Words (each line end counts as one)",
}
"""How much text that is."""

CONDITIONS = {
    "context": "Context (tokens)",
    "stride": "Stride (tokens)",
    "precision": "Precision",
    "lossless": "Lossless tokenizer",
    "round_trip_rate": "Round-trip rate",
    "unknown_rate": "Out-of-vocabulary rate",
}
"""How it was measured."""

FIGURES = {**MEASURED, **COUNTED, **CONDITIONS}

SPLITS = {"train": "Training", "valid": "Validation", "test": "Test"}

NOT_COMPARABLE = "not comparable with published figures"


def altered_text(clean: str, lossless: bool) -> str:
    """Which text figures are of, where it is not the original one: `cleaned and normalized text`; else empty.

    Such figures are not comparable with published ones, which are of the original text.

    Args:
        clean: as `data.clean`; empty where it is not known.
        lossless: of the tokenizer.
    """
    changes = [*(["cleaned"] if clean not in ("", "none") else []), *([] if lossless else ["normalized"])]
    return f"{' and '.join(changes)} text" if changes else ""


def beside(altered: str) -> str:
    """What stands beside a figure of an altered text; empty beside one of the original.

    Args:
        altered: as `altered_text` gives it.
    """
    return f"{altered}, {NOT_COMPARABLE}" if altered else ""


def in_a_sentence(name: str) -> str:
    """A name without the capital that a row begins with: `bits per byte`."""
    return name[:1].lower() + name[1:]
