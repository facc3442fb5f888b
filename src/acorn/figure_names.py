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

SHARES = {
    "accuracy": "Accuracy",
    "subset_accuracy": "Accuracy of whole label sets",
    "token_accuracy": "Token accuracy",
    "exact_match": "Exact match",
    "normalized_match": "Normalized match",
    "ended_rate": "Answers that ended by themselves",
}
"""Figures of a finetuned model that are shares of the examples or tokens."""

TASK_FIGURES = {
    **{name: SHARES[name] for name in ("accuracy", "exact_match", "normalized_match", "ended_rate")},
    "micro_f1": "Micro F1",
    "micro_precision": "Micro precision",
    "micro_recall": "Micro recall",
    "macro_f1": "Macro F1",
    "subset_accuracy": SHARES["subset_accuracy"],
    "expected_calibration_error": "Expected calibration error",
    "mean_absolute_error": "Mean absolute error",
    "rmse": "Root mean squared error",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "token_accuracy": SHARES["token_accuracy"],
    "entity_f1": "Entity F1",
    "entity_precision": "Entity precision",
    "entity_recall": "Entity recall",
    "answer_loss": "Loss of answers (nats per token)",
}
"""Figures of a finetuned model on examples of its task, the one to look at first before the others of its kind."""

SMALLER_IS_BETTER = frozenset({"expected_calibration_error", "mean_absolute_error", "rmse", "answer_loss"})

BASELINES = {
    "majority": "Most frequent label",
    "mean": "Mean of training",
    "tfidf_logistic": "TF-IDF + logistic regression",
    "tfidf_ridge": "TF-IDF + ridge regression",
    "random_weights": "Same network from random weights",
}
"""What a finetuned model stands beside."""

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
