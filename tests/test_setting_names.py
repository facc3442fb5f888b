"""Suggestions for wrong names of settings."""

from __future__ import annotations

import pytest

from acorn.config import Config
from acorn.config_files import flatten
from acorn.setting_names import OTHER_NAMES, all_keys, nearest_keys


def test_names_of_other_programs_suggest_existing_settings() -> None:
    settings = flatten(Config())
    last_names = {key.rpartition(".")[2] for key in settings}
    for name, key in OTHER_NAMES.items():
        assert key in settings
        assert name not in last_names
        assert name == name.lower().replace("-", "_")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("optimizer.learning_rate", "optimizer.lr"),
        ("learning_rate", "optimizer.lr"),
        ("train.lr", "optimizer.lr"),
        ("train.batch", "train.batch_size"),
        ("train.epochs", "finetune.epochs"),
        ("layers", "model.n_layer"),
        ("model.heads", "model.n_head"),
        ("model.dim", "model.n_embd"),
        ("model.hidden_size", "model.n_embd"),
        ("model.context_length", "model.block_size"),
        ("seq-len", "model.block_size"),
        ("schedule.warmup_steps", "schedule.warmup"),
        ("model.n_layr", "model.n_layer"),
        ("optimizr", "optimizer"),
        ("data.batch_size", "train.batch_size"),
    ],
)
def test_a_wrong_name_suggests_the_intended_setting(wrong: str, meant: str) -> None:
    assert nearest_keys(wrong) == [meant]


def test_only_settings_of_the_given_list_are_suggested() -> None:
    assert nearest_keys("learning_rate", ["data.source", "data.clean"]) == []
    assert nearest_keys("dataset", ["data.source", "data.clean"]) == ["data.source"]
    assert nearest_keys("zzzzzz") == []


def test_an_exact_name_suggests_itself() -> None:
    for key in all_keys():
        if "." in key:
            assert nearest_keys(key)[0].rpartition(".")[2] == key.rpartition(".")[2]
