"""Pairs of configs that differ in one switch, to test that some code handles every field of `ModelConfig`."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest

from acorn.config import ModelConfig

BASE = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 16, "vocab_size": 64}
ARCHITECTURES = get_args(ModelConfig.model_fields["architecture"].annotation)


def other_values(name: str, value: Any) -> list[Any]:
    """Other values that a switch can have."""
    annotation = ModelConfig.model_fields[name].annotation
    if isinstance(value, bool) or bool in get_args(annotation):
        return [True, False]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if isinstance(value, float):
        return [2 * value, 0.25]
    return [2 * value, 1, 2, 8]


def variants() -> list[Any]:
    """Pairs of configs that differ in one switch and give different networks."""
    found = []
    for architecture in ARCHITECTURES:
        config = ModelConfig(architecture=architecture, **BASE)
        for name in ModelConfig.model_fields:
            if name == "architecture":
                continue
            for value in other_values(name, getattr(config, name)):
                try:
                    other = ModelConfig.model_validate({**config.model_dump(), name: value})
                except ValueError:
                    continue
                if other.spelled_out() != config.spelled_out():
                    found.append(pytest.param(config, other, id=f"{architecture}-{name}-{value}"))
    return found
