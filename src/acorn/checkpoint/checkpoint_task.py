"""What the model of a checkpoint is for, as its run stored it beside the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from acorn.checkpoint.model_task import LANGUAGE_MODEL, ModelTask
from acorn.checkpoint.training_state import Checkpoint
from acorn.config import LoraConfig
from acorn.errors import DamageError
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec
from acorn.run_folder import STATE
from acorn.tokenizer.tokenizer import Tokenizer

ANSWERS, HEAD, MARKUP = "answers", "head", "markup_ids"
"""Keys that a finetuning run stores in the `resolved` of its checkpoints."""


def answers_record(end_ids: Sequence[int], trained_ids: Sequence[int], chat_template: str) -> dict[str, Any]:
    """What is stored for a finetuned language model; see `ModelTask`."""
    return {ANSWERS: {"end_ids": list(end_ids), "trained_ids": list(trained_ids), "chat_template": chat_template}}


def head_record(head: HeadSpec, labels: Sequence[str], scale: float) -> dict[str, Any]:
    """What is stored for a label head.

    Args:
        scale: the factor of its outputs that is not part of the stored weights.
    """
    return {HEAD: {"kind": head.kind, "outputs": head.outputs, "labels": list(labels), "scale": scale}}


def task_of_checkpoint(state: Checkpoint, tokenizer: Tokenizer) -> ModelTask:
    """What the model of a checkpoint is for; a run that was trained on text stores nothing.

    Raises:
        DamageError: what is stored cannot be read.
    """
    try:
        if head := state.resolved.get(HEAD):
            return ModelTask(HeadSpec(head["kind"], head["outputs"]), tuple(head["labels"]))
        if found := state.resolved.get(ANSWERS):
            return ModelTask(
                end_ids=tuple(found["end_ids"]),
                trained_ids=tuple(found["trained_ids"]),
                chat_template=str(found["chat_template"]),
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(state, error) from None
    return LANGUAGE_MODEL


def scale_of_checkpoint(state: Checkpoint) -> float:
    """The factor by which the outputs of a checkpoint's label head must be multiplied."""
    head = state.resolved.get(HEAD)
    scale = head.get("scale", 1.0) if isinstance(head, Mapping) else 1.0
    return float(scale) if isinstance(scale, int | float) else 1.0


def lora_of_checkpoint(state: Checkpoint) -> LoraSpec | None:
    """The LoRA of a checkpoint; None: all weights were trained.

    Raises:
        DamageError: what is stored cannot be read.
    """
    try:
        return lora_spec(state.config.lora, tuple(state.resolved.get(MARKUP, ())))
    except (TypeError, ValueError) as error:
        raise _unreadable(state, error) from None


def lora_spec(config: LoraConfig, markup_ids: Sequence[int] = ()) -> LoraSpec | None:
    """The LoRA of `config`; None: its rank is 0."""
    if not config.rank:
        return None
    return LoraSpec(config.rank, config.alpha or 2.0 * config.rank, config.dropout, config.targets, tuple(markup_ids))


def _unreadable(state: Checkpoint, error: Exception) -> DamageError:
    return DamageError(
        f"The checkpoint does not tell what its model is for: {error}",
        where=str(state.path / STATE),
        fix="name the run folder, whose newest intact checkpoint is used, or restore this one from a copy",
    )
