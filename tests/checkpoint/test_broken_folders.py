"""Folders of other people's models: what is broken is damage (exit code 4), what acorn does not have bad input (3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from other_models import make_model

from acorn.checkpoint.load import load
from acorn.errors import DamageError, InputError

FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
GARBLED = {
    "garbled": b"\x80\x02\xff garbled",
    "empty": b"",
    "an LFS pointer": b"version https://git-lfs.github.com/spec\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_model(tmp_path / "model", "llama-3")
    return tmp_path / "model"


def damage_of(folder: Path) -> str:
    """The message; its advice must be right for a folder that somebody else made."""
    with pytest.raises(DamageError) as caught:
        load(folder)
    assert "download it again" in caught.value.fix
    assert caught.value.where.startswith(str(folder))
    return str(caught.value)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["cut short", *GARBLED])
def test_a_broken_file_is_named(folder: Path, file: str, how: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(GARBLED.get(how, content[: len(content) // 2]))
    assert file in damage_of(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert file in damage_of(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    places = {
        "model.norm.weight": "model-00001-of-00002.safetensors",
        "lm_head.weight": "model-00002-of-00002.safetensors",
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert "do not exist: model-00002-of-00002.safetensors." in damage_of(folder)


def _other_network(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "mamba"}')


def _no_separator(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text("utf-8").replace("<|end_of_text|>", "<|fin|>"), "utf-8")


@pytest.mark.parametrize("change", [_other_network, _no_separator])
def test_an_intact_folder_of_an_unsupported_model_is_bad_input(folder: Path, change: Callable[[Path], None]) -> None:
    change(folder)
    with pytest.raises(InputError) as caught:
        load(folder)
    assert caught.value.fix == "use it with the transformers library instead"
