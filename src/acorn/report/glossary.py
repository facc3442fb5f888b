"""The terms of the report and the docs, each explained once: `glossary.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources

from acorn.report.markup import escaped, with_code

REPORT_TERMS = (
    *("Bits per byte", "Context", "Epoch", "Gradient norm", "Learning rate", "Loss", "MFU", "Nat"),
    *("Out-of-vocabulary rate", "Overfitting", "Parameters", "Peak (of a machine)", "Perplexity", "Round-trip rate"),
    *("Step", "Stride", "Token", "Unknown token"),
    *("Validation", "Word perplexity"),
)
"""Terms that stand on the report's page."""

TASK_TERMS = (
    *("Accuracy", "Baseline", "Calibration", "Confusion matrix", "Ended rate", "Epoch", "Exact match", "F1"),
    *("Gradient norm", "Learning rate", "Loss", "MFU", "Nat", "Overfitting", "Parameters", "Peak (of a machine)"),
    *("Precision and recall", "Step", "TF-IDF", "Token", "Validation"),
)
"""Terms that stand on the page of a finetuned model."""


def glossary() -> dict[str, str]:
    """Term -> meaning, in alphabetical order; `code` stands between backticks."""
    return tomllib.loads(resources.files("acorn.report").joinpath("glossary.toml").read_text("utf-8"))


def glossary_section(terms: Sequence[str] = REPORT_TERMS) -> str:
    """The report's terms, folded, each with its meaning."""
    meanings = glossary()
    pairs = "".join(f"<dt>{escaped(term)}</dt><dd>{with_code(meanings[term])}</dd>" for term in terms)
    return f'<details><summary>{len(terms)} terms of this page</summary><dl class="facts">{pairs}</dl></details>'
