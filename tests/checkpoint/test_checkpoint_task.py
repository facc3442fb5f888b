"""What a checkpoint tells of its model."""

from __future__ import annotations

from pathlib import Path

import pytest

from acorn.checkpoint.checkpoint_task import (
    answers_record,
    head_record,
    lora_of_checkpoint,
    scale_of_checkpoint,
    task_of_checkpoint,
)
from acorn.checkpoint.model_task import LANGUAGE_MODEL, ModelTask
from acorn.checkpoint.training_state import Checkpoint, Counters
from acorn.config_files import load_config
from acorn.errors import DamageError
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec


def checkpoint(resolved: dict, *overrides: str) -> Checkpoint:
    return Checkpoint(Path("c"), load_config(None, overrides), "", {}, {}, Counters(), resolved)


def test_what_a_run_stored_is_read_back() -> None:
    head = HeadSpec("labels", 2, class_weights=())
    assert task_of_checkpoint(checkpoint(head_record(head, ["a", "b"], 1.0)), None) == ModelTask(head, ("a", "b"))
    stored = checkpoint(answers_record([5, 0], [3], "{{ x }}"))
    assert task_of_checkpoint(stored, None) == ModelTask(None, (), (5, 0), (3,), "{{ x }}")
    assert task_of_checkpoint(checkpoint({}), None) == LANGUAGE_MODEL
    assert scale_of_checkpoint(checkpoint(head_record(HeadSpec("value", 1), ["value"], 8.0))) == 8
    assert scale_of_checkpoint(checkpoint({})) == 1


def test_adapters_are_those_of_the_config() -> None:
    assert lora_of_checkpoint(checkpoint({})) is None
    assert lora_of_checkpoint(checkpoint({"markup_ids": [3]}, "lora.rank=4")) == LoraSpec(4, 8.0, markup_ids=(3,))


@pytest.mark.parametrize("stored", [{"head": {"kind": "class"}}, {"head": 3}, {"answers": {"end_ids": 5}}])
def test_what_cannot_be_read_is_damage(stored: dict) -> None:
    with pytest.raises(DamageError, match="does not tell"):
        task_of_checkpoint(checkpoint(stored), None)
