"""The figures of an evaluation as lines of the terminal: named as in the report, with what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acorn.cli.output import readable
from acorn.figure_names import FIGURES, SCORES, SPLITS, beside, in_a_sentence


def evaluation_facts(figures: Mapping[str, Any], altered: str = "") -> dict[str, str]:
    """Name -> value of the figures that are there, then the notes on them.

    Args:
        figures: with the keys of `acorn evaluate --json`, all or some of them.
        altered: which text they are of, where it is not the original; see `figure_names.altered_text`.
    """
    facts = {"split": split_name(figures["split"])} if "split" in figures else {}
    note = f"  ({beside(altered)})" if altered else ""
    for key, name in FIGURES.items():
        if (value := figures.get(key)) is not None:
            facts[in_a_sentence(name)] = rate(value) if key.endswith("_rate") else readable(value)
            facts[in_a_sentence(name)] += note if key in SCORES else ""
    for key, name in SCORES.items():
        if said := figures.get(f"{key}_note"):
            facts[f"note on {in_a_sentence(name)}"] = str(said)
    return facts


def split_name(split: str) -> str:
    """A split as a person calls it; any other text as it is."""
    return in_a_sentence(SPLITS[split]) if split in SPLITS else split


def rate(share: float) -> str:
    """A share of 0 to 1 in per cent."""
    return f"{100 * share:.4g} %"
