from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from acorn.config import FinetuneConfig, LoraConfig


def test_finetuning_is_off_until_a_task_is_named() -> None:
    assert FinetuneConfig().task == ""
    assert LoraConfig().rank == 0
    assert FinetuneConfig(labels="only").labels == ("only",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {"task": "translate"},
        {"epochs": -1},
        {"replay": 1.0},
        {"labels": ("a", "a")},
        {"labels": ("a", "")},
        {"labels": ("a", " b")},
        {"overlong": "cut_answer"},
        {"unknown": 1},
    ],
)
def test_what_finetuning_cannot_be_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FinetuneConfig(**values)


@pytest.mark.parametrize("values", [{"rank": -1}, {"dropout": 1.0}, {"alpha": -1.0}])
def test_what_an_adapter_cannot_be_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LoraConfig(**values)
