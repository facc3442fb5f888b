"""The settings of a run for comparison: equal settings in one spelling, those that acorn may have chosen apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from acorn.config import ModelConfig, OptimizerConfig, Section
from acorn.report.markup import escaped

S = TypeVar("S", bound=Section)

OF_THE_MACHINE = frozenset(
    {
        *("train.device", "train.precision", "train.compile", "train.threads", "train.micro_batch_size"),
        "parallel.strategy",
    }
)
"""Settings that acorn chooses if they are left open. config.toml holds the resulting values, and does not say which of
them the user set."""


def spelled_out(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Dotted key -> value, with `auto` and 0 replaced by what they stand for, so that equal settings are equal values.

    Sections of another version of acorn are taken as they are.
    """
    flat = flat_settings(config)
    if (model := _section(ModelConfig, config.get("model", {}))) is not None:
        flat |= {f"model.{key}": value for key, value in model.spelled_out() if f"model.{key}" in flat}
    if (optimizer := _section(OptimizerConfig, config.get("optimizer", {}))) is not None and "optimizer.lr" in flat:
        flat["optimizer.lr"] = optimizer.peak_lr
    return flat


def flat_settings(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Dotted key -> value, as they are."""
    return {f"{section}.{key}": value for section, values in config.items() for key, value in values.items()}


def setting_name(key: str) -> str:
    """A key as HTML, which a narrow column breaks after a dot or an underscore and nowhere else."""
    return f"<code>{escaped(key).replace('.', '.<wbr>').replace('_', '_<wbr>')}</code>"


def _section(kind: type[S], values: Mapping[str, Any]) -> S | None:
    try:
        return kind.model_validate(dict(values))
    except ValueError:
        return None
