"""The initial weights of a run: new ones, or those of another model, with its network and tokenizer."""

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

FREE_FIELDS = ("block_size", "dropout")
"""Fields in which a run may differ from the model it starts from: a shorter context, and what only training uses."""


def load_initial_model(config: Config, progress: Progress, folders: Sequence[Path] = ()) -> tuple[Config, LoadedModel]:
    """The model that `train.init_from` names, and the config with its network.

    Args:
        folders: where a relative path is looked up; by default the current folder.

    Raises:
        UsageError: it does not exist, or other settings contradict it.
        InputError: acorn cannot build it.
        DamageError: its files fail their check.
    """
    initial = load(first_there(config.train.init_from, folders or [Path.cwd()]), progress=progress)
    progress.note(f"Training starts from {descent(bases_of(initial))}.")
    if initial.task:
        progress.note("Its label head is left out: training starts from its embeddings and blocks.")
    return with_network(config, initial.config), initial


def with_network(config: Config, network: ModelConfig) -> Config:
    """`config` with the model settings of `network`. Those it sets itself must agree, but its context may be shorter.

    Raises:
        UsageError: they do not agree; both values of each setting are shown.
    """
    given = {name: getattr(config.model, name) for name in config.model.model_fields_set}
    if not given.get("vocab_size"):
        given.pop("vocab_size", None)
    asked = network.model_copy(update=given)
    theirs, ours = network.spelled_out(), asked.spelled_out()
    faults = [
        f"model.{name} is {getattr(asked, name)!r}; the model has {getattr(theirs, name)!r}"
        for name in given
        if name not in FREE_FIELDS and getattr(theirs, name) != getattr(ours, name)
    ]
    if asked.block_size > network.block_size:
        faults.append(f"model.block_size is {asked.block_size:,}; the model supports {network.block_size:,} positions")
    if config.tokenizer != TokenizerConfig():
        faults.append("tokenizer.* is set; the model has its own tokenizer")
    if faults:
        raise UsageError(
            f"The settings contradict the model {config.train.init_from}:\n" + "\n".join(f"  - {f}" for f in faults),
            where="train.init_from",
            fix="remove these settings: network and tokenizer come from the model",
        )
    return with_values(config, {f"model.{name}": value for name, value in asked})


def begin_weights(
    run: RunFolder,
    model: GPT,
    config: Config,
    tokens: TokenSequence | None,
    initial: LoadedModel | None,
    progress: Progress,
) -> None:
    """Sets the initial weights of `model` for a run of `config`. The model that they are taken from is freed.

    Args:
        tokens: the training text; None: there is none, because the run starts from a model.
        initial: the model that `train.init_from` names; None, or freed: it is loaded if one is named.

    Raises:
        UsageError: the model that `train.init_from` names no longer exists, or has changed.
        InputError, DamageError: it cannot be loaded, see `load_initial_model`.
    """
    if config.train.init_from:
        if initial is None or initial.is_released:
            initial = same_base(run, config, progress)
            with_network(config, initial.config)  # refuses a changed model if no digest was recorded
        if untaken := _take_weights(model, initial.model):
            # The head of a language model, which a model with a label head does not have unless it is tied.
            model.init_weights(config.train.seed, untaken)
            progress.note(f"{', '.join(sorted(untaken))}: initialized, since that model has none.")
        initial.release()
        return
    model.init_weights(config.train.seed)
    if config.chosen_init == "bigrams":
        assert tokens is not None
        add_bigrams(model, tokens, config.train.seed)
        progress.note("Embedding and head are initialized from bigram counts of the text (train.init).")


@torch.no_grad()
def _take_weights(model: GPT, initial: GPT) -> frozenset[str]:
    """Copies the weights of `initial`. If the context is shorter, only the first learned positions are copied.

    Parameters that only `model` has (`GPT.new_parameters`) are unchanged.

    Returns:
        names of the parameters that a language model has and `initial`, with its label head, does not.
    """
    weights, new = dict(initial.named_parameters()), model.new_parameters()
    for name, parameter in model.named_parameters():
        if name in new or (name not in weights and initial.head is None):
            continue
        source = weights[name]
        parameter.copy_(source[: len(parameter)] if name == "position_embedding.weight" else source)
    return frozenset(name for name, _ in model.named_parameters() if name not in weights) - new
