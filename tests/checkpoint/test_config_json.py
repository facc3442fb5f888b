"""Whatever changes the network is in the config.json that it is stored with."""

from __future__ import annotations

import pytest
from network_switches import variants

from acorn.checkpoint.config_json import from_config_json, to_config_json
from acorn.checkpoint.layouts import expected_shapes
from acorn.config import ModelConfig

IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


# Qwen3 and Llama have no field for a dropout such as ours, which changes no trained model.
STORED = [parameter for parameter in variants() if not parameter.id.startswith("modern-dropout-")]


@pytest.mark.parametrize(("config", "other"), STORED)
def test_a_switch_is_stored_and_read_back(config: ModelConfig, other: ModelConfig) -> None:
    stored = to_config_json(other, IDS)
    assert stored != to_config_json(config, IDS), "checkpoint/config_json.py: to_config_json leaves the switch out"
    read = from_config_json(stored, "config.json").model
    assert read.spelled_out() == other.spelled_out(), "checkpoint/config_json.py: from_config_json reads something else"
    assert expected_shapes(read) == expected_shapes(other)


def test_every_switch_is_tried_in_some_architecture() -> None:
    tried = {parameter.id.split("-")[1] for parameter in variants()}
    assert tried == set(ModelConfig.model_fields) - {"architecture"}
