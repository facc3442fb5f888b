"""The config of a finetuning run: its own defaults, what the command line names, and which settings have no effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from acorn.config import Config
from acorn.config_files import as_list, config_of, flatten
from acorn.counting import counted
from acorn.errors import UsageError

DEFAULTS: dict[str, dict[str, Any]] = {
    "optimizer": {"name": "adamw", "weight_decay": 0.01},
    "schedule": {"name": "linear", "warmup": 0.05},
    "train": {"batch_size": 16, "eval_every": 50, "save_every": 200, "sample_every": 0},
    "finetune": {"task": "auto", "epochs": 10.0},
}
"""Section -> key -> default of finetuning, where that is not the one of pretraining."""

RATE_TIMES_WIDTH, LORA_RATE_TIMES_WIDTH = 0.384, 1.28
"""Default of `optimizer.lr` times n_embd, for whole matrices and for adapters: 0.003 and 0.01 at 128 channels, the best
of the sweep in docs/lab-notebook.md. AdamW's best rate falls as 1 / width (Yang et al. 2022)."""

LARGEST_RATE = 0.01
"""Default of `optimizer.lr` for networks so narrow that the above would be more."""

NAME = "finetuned"

IDLE = (
    *("data.shards", "data.clean", "data.document", "data.text_field", "data.shard_tokens", "data.shuffle_group"),
    *("schedule.short_context", "schedule.short_share", "train.init"),
    *("tokenizer.kind", "tokenizer.vocab_size", "tokenizer.path"),
)
"""Settings that have no effect in finetuning."""


def finetune_config(
    base: str,
    data: Sequence[str],
    *,
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
    task: str = "",
    lora: int = 0,
    overrides: str | Sequence[str] = (),
) -> Config:
    """The config of a run that finetunes `base`.

    Args:
        base: a run, a model folder or `hf:OWNER/NAME`.
        data, valid, test: sources of the rows of each side.
        task: as `finetune.task`; empty: by the columns.
        lora: rank of the adapters; 0: none.
        overrides: `key=value` settings on top; a single one is the same as a list of one.

    Raises:
        UsageError: any key or value is wrong (all are listed).
    """
    overrides = as_list(overrides)
    values: dict[str, Any] = {section: dict(table) for section, table in DEFAULTS.items()}
    sources = {"source": data, "valid_source": valid, "test_source": test}
    values["name"] = NAME
    values["data"] = {key: list(named) for key, named in sources.items() if named}
    values["train"]["init_from"] = base
    values["finetune"] |= {"task": task} if task else {}
    values |= {"lora": {"rank": lora}} if lora else {}
    return config_of(values, "the command line", overrides)


def default_rate(config: Config) -> float:
    """The learning rate where none is set, to two digits."""
    product = LORA_RATE_TIMES_WIDTH if config.lora.rank else RATE_TIMES_WIDTH
    return float(f"{min(LARGEST_RATE, product / config.model.n_embd):.1e}")


def check_finetuning(config: Config) -> None:
    """Refuses a config of which no finetuning run can be made.

    Raises:
        UsageError: it says what is wrong.
    """
    if not config.train.init_from:
        raise UsageError(
            "No model is named to start from.", where="acorn finetune", fix="name a run or a model folder first"
        )
    if not config.data.source:
        raise UsageError("No rows are named.", where="--data", fix="name some, such as --data mails.csv")
    if not (config.train.steps or config.train.minutes or config.finetune.epochs):
        raise UsageError(
            "The run has no length.", where="finetune.epochs, train.steps, train.minutes", fix="set one of them"
        )
    given, defaults = flatten(config), flatten(Config())
    if idle := [key for key in IDLE if given[key] != defaults[key]]:
        raise UsageError(
            f"These settings have no effect in finetuning: {', '.join(idle)}.",
            where="the command line",
            fix="leave them out; finetune.text_field and the other fields name columns",
        )
    if config.finetune.freeze and config.lora.rank:
        raise UsageError(
            "Adapters leave every weight of the base as it is, so no blocks are left to freeze.",
            where="finetune.freeze, lora.rank",
            fix="leave one of them out",
        )


def check_frozen(config: Config, has_label_head: bool) -> None:
    """Refuses a finetune.freeze that the base's network does not have, or that would leave nothing to train.

    Args:
        config: with the base's network.

    Raises:
        UsageError: it says why.
    """
    frozen, blocks = config.finetune.freeze, config.model.n_layer
    if frozen > blocks:
        raise UsageError(
            f"The model has {counted(blocks, 'block')}, so {frozen:,} of them cannot be frozen.",
            where="finetune.freeze",
            fix=f"set it to {blocks:,} or less",
        )
    if frozen == blocks and config.model.is_tied and not has_label_head:
        raise UsageError(
            "Nothing would be trained: this model's head is its embedding, which is frozen with all blocks.",
            where="finetune.freeze",
            fix=f"set it to {blocks - 1:,} or less" if blocks > 1 else "leave it out",
        )
