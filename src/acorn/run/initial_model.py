"""The weights that a run begins with: new ones, or those of another model, with its network and tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from acorn.checkpoint.bases import bases_of
from acorn.checkpoint.load import LoadedModel, load
from acorn.config import Config, ModelConfig, TokenizerConfig
from acorn.config_files import with_values
from acorn.data.token_shards import TokenSequence
from acorn.errors import UsageError
from acorn.model.gpt import GPT
from acorn.origin import descent
from acorn.progress import Progress
from acorn.run.start_folder import first_there
from acorn.run.unchanged import same_base
from acorn.run_folder import RunFolder
from acorn.train.bigrams import add_bigrams

FREE = ("block_size", "dropout")
"""What a run may set otherwise than the model it goes on from: a shorter context, and what only training knows."""


def load_initial_model(config: Config, progress: Progress, folders: Sequence[Path] = ()) -> tuple[Config, LoadedModel]:
    """The model that `train.init_from` names, and the config with its network.

    Args:
        folders: where a relative path is looked for; by default in the current folder.

    Raises:
        UsageError: it is not there, or other settings contradict it.
        InputError, DamageError, MissingPackageError: as `load`.
    """
    initial = load(first_there(config.train.init_from, folders or [Path.cwd()]), progress=progress)
    progress.note(f"Training starts from {descent(bases_of(initial))}.")
    return with_network(config, initial.config), initial


def with_network(config: Config, network: ModelConfig) -> Config:
    """`config` with `network`, of which it may only have said what is so, or a shorter context.

    Raises:
        UsageError: it says otherwise; both values of each setting are shown.
    """
    given = {name: getattr(config.model, name) for name in config.model.model_fields_set}
    if not given.get("vocab_size"):
        given.pop("vocab_size", None)
    asked = network.model_copy(update=given)
    theirs, ours = network.spelled_out(), asked.spelled_out()
    faults = [
        f"model.{name} is {getattr(asked, name)!r}; the model has {getattr(theirs, name)!r}"
        for name in given
        if name not in FREE and getattr(theirs, name) != getattr(ours, name)
    ]
    if asked.block_size > network.block_size:
        faults.append(f"model.block_size is {asked.block_size:,}; the model knows {network.block_size:,} positions")
    if config.tokenizer != TokenizerConfig():
        faults.append("tokenizer.* is set; the model comes with its tokenizer")
    if faults:
        raise UsageError(
            f"The settings contradict the model {config.train.init_from}:\n" + "\n".join(f"  - {f}" for f in faults),
            where="train.init_from",
            fix="leave these settings out: network and tokenizer are those of the model",
        )
    return with_values(config, {f"model.{name}": value for name, value in asked})


def begin_weights(
    run: RunFolder,
    model: GPT,
    config: Config,
    tokens: TokenSequence,
    initial: LoadedModel | None,
    progress: Progress,
) -> None:
    """Gives `model` the weights that a run of `config` begins with.

    Args:
        tokens: of the training text.
        initial: the model that `train.init_from` names; None: it is loaded if there is one.

    Raises:
        UsageError: the model that `train.init_from` names is gone, or another than it was.
        InputError, DamageError, MissingPackageError: as `load`.
    """
    if config.train.init_from:
        if initial is None:
            initial = same_base(run, config, progress)
            with_network(config, initial.config)  # refuses another than it was, where no digest is known
        _take_weights(model, initial.model)
        return
    model.init_weights(config.train.seed)
    if config.chosen_init == "bigrams":
        add_bigrams(model, tokens, config.train.seed)
        progress.note("Embedding and head begin with which token follows which in the text (train.init).")


@torch.no_grad()
def _take_weights(model: GPT, initial: GPT) -> None:
    """Copies the weights of `initial`; of learned positions the first ones, where `model` has a shorter context.

    Parameters that only `model` has (`GPT.new_parameters`) are left as they are.
    """
    weights, new = dict(initial.named_parameters()), model.new_parameters()
    for name, parameter in model.named_parameters():
        if name in new:
            continue
        source = weights[name]
        parameter.copy_(source[: len(parameter)] if name == "position_embedding.weight" else source)
