"""The model card of a finetuned model, from the config of its run and the figures of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from acorn.checkpoint.answer_card import AnswerFacts, write_answer_card
from acorn.checkpoint.task_card import TaskFacts, write_task_card
from acorn.config import Config
from acorn.model.label_head import HeadSpec
from acorn.origin import Base
from acorn.report.formats import frozen_parts


def finetuned_card(
    config: Config,
    tokenizer_kind: str,
    head: HeadSpec | None,
    labels: Sequence[str],
    *,
    examples: int,
    steps: int,
    bases: Sequence[Base],
    evaluations: Sequence[Mapping[str, Any]],
    limits: Sequence[str],
) -> str:
    """The text of README.md.

    Args:
        config: of the run.
        head: the label head; None: the model answers.
        labels: names of the labels; none: the model answers or gives a value.
        examples: number of training examples.
        steps: optimizer steps after which the weights are as they are.
        bases: the models whose weights training started from, nearest first.
        evaluations: one mapping per split, with the keys that `acorn evaluate --json` prints, and `split`.
        limits: sentences on the limits of these weights, in addition to those of every model.
    """
    adapter = {"rank of the adapters": config.lora.rank} if config.lora.rank else {}
    kept = frozen_parts(config.finetune.freeze, config.model.n_layer)
    recipe = {
        "optimizer": config.optimizer.name,
        "peak learning rate": config.optimizer.peak_lr,
        "schedule": config.schedule.name,
        "examples per step": config.train.batch_size,
        **adapter,
        **({"not trained": kept} if kept else {}),
        "precision": config.train.precision,
        "seed": config.train.seed,
    }
    common: dict[str, Any] = {
        "name": config.name,
        "config": config.model,
        "tokenizer_kind": tokenizer_kind,
        "sources": config.data.source,
        "examples": examples,
        "steps": steps,
        "recipe": recipe,
        "bases": bases,
        "evaluations": evaluations,
        "limits": limits,
    }
    if head is None:
        return write_answer_card(AnswerFacts(task=config.finetune.task, **common))
    return write_task_card(TaskFacts(head=head, labels=labels, **common))
