"""Names of an evaluation's figures in the terminal, the report and the model card, and notes on altered text.

The keys are the fields of `acorn evaluate --json`.
"""

from __future__ import annotations

SCORES = {
    "bits_per_byte": "Bits per byte",
    "loss_per_token": "Loss (nats per token)",
    "perplexity_per_token": "Perplexity per token",
    "word_perplexity": "Word perplexity",
}
"""Scores of a model on a text."""

TEXT_COUNTS = {
    "documents": "Documents",
    "tokens": "Tokens (separators included)",
    "bytes": "Bytes of original text",
    "words": "Words (each line end counts as one)",
}
"""The size of the scored text."""

CONDITIONS = {
    "context": "Context (tokens)",
    "stride": "Stride (tokens)",
    "precision": "Precision",
    "lossless": "Lossless tokenizer",
    "round_trip_rate": "Round-trip rate",
    "unknown_rate": "Out-of-vocabulary rate",
}
"""How the scores were measured."""

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
    "base_loss_before": "Loss on the base's text before finetuning (nats per token)",
    "base_loss_after": "Loss on the base's text after finetuning (nats per token)",
}
"""Figures of a finetuned model on examples of its task, the most important of each kind first."""

SMALLER_IS_BETTER = frozenset(
    {
        "expected_calibration_error",
        "mean_absolute_error",
        "rmse",
        "answer_loss",
        "base_loss_before",
        "base_loss_after",
    }
)

BASELINES = {
    "majority": "Most frequent label",
    "mean": "Mean of training",
    "word_majority": "Most frequent tag of each word",
    "tfidf_logistic": "TF-IDF + logistic regression",
    "tfidf_ridge": "TF-IDF + ridge regression",
    "random_weights": "Same network from random weights",
}
"""Baselines that a finetuned model is compared with."""

FIGURES = {**SCORES, **TEXT_COUNTS, **CONDITIONS}

SPLITS = {"train": "Training", "valid": "Validation", "test": "Test"}

NOT_COMPARABLE = "not comparable with published figures"


def altered_text(clean: str, lossless: bool) -> str:
    """How the scored text differs from the original: `cleaned and normalized text`; empty if it does not.

    Figures of altered text are not comparable with published ones, which are measured on the original text.

    Args:
        clean: the value of `data.clean`; empty if unknown.
        lossless: whether the tokenizer is lossless.
    """
    changes = [*(["cleaned"] if clean not in ("", "none") else []), *([] if lossless else ["normalized"])]
    return f"{' and '.join(changes)} text" if changes else ""


def beside(altered: str) -> str:
    """The note beside a figure of altered text; empty for the original text.

    Args:
        altered: the result of `altered_text`.
    """
    return f"{altered}, {NOT_COMPARABLE}" if altered else ""


def in_a_sentence(name: str) -> str:
    """A name with a lower-case first letter, for use inside a sentence: `bits per byte`."""
    return name[:1].lower() + name[1:]
