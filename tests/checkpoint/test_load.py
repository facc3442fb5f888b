"""Every kind of RUN becomes the model that was written, or an error that says what was looked for."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from acorn.checkpoint import load as load_module
from acorn.checkpoint.integrity import MAX_ATTEMPTS
from acorn.checkpoint.layouts import meta_parameters
from acorn.checkpoint.load import build_model, load
from acorn.checkpoint.rotation import rotate_checkpoints
from acorn.checkpoint.training_state import Counters, save_checkpoint
from acorn.config import Config, ModelConfig
from acorn.errors import DamageError, InputError, UsageError
from acorn.files import seal, sha256_of, write_sealed_json
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.run_folder import RunFolder
from acorn.tokenizer.tokenizer import Tokenizer


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 4
    file.write_bytes(content)


def is_from(model: GPT, checkpoint: Path) -> bool:
    weights = load_file(checkpoint / "model.safetensors")
    parameters = dict(model.named_parameters())
    return weights.keys() == parameters.keys() and all(torch.equal(weights[name], parameters[name]) for name in weights)


class Notes:
    """A progress that records its notes."""

    def __init__(self, notes: list[str]) -> None:
        self.note = notes.append

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None: ...

    def end(self, task: str) -> None: ...


def test_a_run_loads_its_final_model(run: RunFolder, tokenizer: Tokenizer) -> None:
    loaded = load(run.root)
    assert loaded.folder == run.final
    assert loaded.step is None
    assert is_from(loaded.model, run.checkpoint(20))
    assert not loaded.model.training
    assert loaded.tokenizer.fingerprint == tokenizer.fingerprint
    assert loaded.config == loaded.model.config


def test_a_run_without_a_final_model_loads_its_newest_checkpoint(run: RunFolder) -> None:
    shutil.rmtree(run.final)
    loaded = load(str(run.root))
    assert (loaded.folder, loaded.step) == (run.checkpoint(20), 20)


@pytest.mark.parametrize(("checkpoint", "step"), [("last", 20), ("best", 10), ("10", 10), ("20", 20)])
def test_a_checkpoint_is_chosen(run: RunFolder, checkpoint: str, step: int) -> None:
    loaded = load(run.root, checkpoint)
    assert (loaded.folder, loaded.step) == (run.checkpoint(step), step)
    assert is_from(loaded.model, run.checkpoint(step))


def test_a_checkpoint_or_model_folder_by_itself(run: RunFolder, tmp_path: Path) -> None:
    """They also load outside their run."""
    shutil.move(run.checkpoint(10), tmp_path / "elsewhere")
    shutil.move(run.final, tmp_path / "model")
    assert load(tmp_path / "elsewhere").step == 10
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "model").model(ids), load(run.checkpoint(20)).model(ids))


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_loaded_model_is_complete_and_tied(architecture: str, tied: bool) -> None:
    """Fault 62: tied weights survive."""
    config = ModelConfig(
        architecture=architecture, tied=tied, n_layer=2, n_embd=16, n_head=2, block_size=8, vocab_size=11
    )
    model = GPT(config)
    model.init_weights(0)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    built = build_model(config, weights, "cpu", torch.float32)
    assert (built.head.weight is built.token_embedding.weight) == tied
    assert dict(built.named_parameters()).keys() == weights.keys()
    assert not any(parameter.is_meta for parameter in built.parameters())
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(built(ids), model(ids))


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
def test_a_model_with_a_label_head_is_built(architecture: str) -> None:
    """It has no head of the vocabulary to tie, and none of the class weights of its training."""
    config = ModelConfig(architecture=architecture, n_layer=2, n_embd=16, n_head=2, block_size=8, vocab_size=11)
    head = HeadSpec("tag", 3, bias=True, class_weights=(1.0, 2.0, 3.0))
    model = GPT(config, head=head)
    model.init_weights(0)
    assert meta_parameters(config, head).keys() == dict(model.named_parameters()).keys()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    built = build_model(config, weights, "cpu", torch.float32, head)
    assert not any(tensor.is_meta for tensor in (*built.parameters(), *built.buffers()))
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(built(ids), model(ids))
    assert built(ids).shape == (1, 3, 3)


def test_weights_have_the_requested_data_type(run: RunFolder) -> None:
    model = load(run.root, dtype=torch.bfloat16).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("checkpoint", [None, "last"])
def test_a_damaged_newest_checkpoint_is_skipped_with_a_note(run: RunFolder, checkpoint: str | None) -> None:
    """Fault 38: the newest intact one is used, with a note."""
    shutil.rmtree(run.final)
    flip_bit(run.checkpoint(20) / "model.safetensors")
    notes: list[str] = []

    assert load(run.root, checkpoint, progress=Notes(notes)).step == 10
    assert "step 10" in notes[0]


def test_a_damaged_requested_checkpoint_is_an_error(run: RunFolder) -> None:
    """Fault 37: the file is named, and the other checkpoint is suggested."""
    flip_bit(run.checkpoint(20) / "model.safetensors")
    with pytest.raises(DamageError) as caught:
        load(run.root, "20")
    assert str(run.checkpoint(20) / "model.safetensors") in caught.value.what
    assert "10" in caught.value.fix
    with pytest.raises(DamageError, match=r"model\.safetensors"):
        load(run.checkpoint(20))


def test_a_damaged_final_model_is_an_error(run: RunFolder) -> None:
    """Fault 37: the file is named, and the checkpoints are suggested."""
    flip_bit(run.final / "model.safetensors")
    with pytest.raises(DamageError) as caught:
        load(run.root)
    assert str(run.final / "model.safetensors") in caught.value.what
    assert "--checkpoint last" in caught.value.fix
    assert load(run.root, "last").step == 20


def test_all_checkpoints_damaged(run: RunFolder) -> None:
    """Fault 39."""
    shutil.rmtree(run.final)
    for step in (10, 20):
        flip_bit(run.checkpoint(step) / "state.json")
    with pytest.raises(DamageError):
        load(run.root)


def test_while_the_final_model_is_being_replaced(run: RunFolder) -> None:
    run.final.rename(run.final.with_name("final.old"))
    assert load(run.root).folder == run.final.with_name("final.old")


def meanwhile(monkeypatch: pytest.MonkeyPatch, function: str, change: Callable[[], None]) -> None:
    """Calls `change`, as another process would, just before the first call of `function` (module.name)."""
    module, _, name = function.rpartition(".")
    real = getattr(importlib.import_module(module), name)
    changes = [change]

    def changed(*arguments: Any, **options: Any) -> Any:
        if changes:
            changes.pop()()
        return real(*arguments, **options)

    monkeypatch.setattr(function, changed)


READERS = [
    "acorn.checkpoint.integrity.verify_folder",
    "acorn.checkpoint.load.checkpoint_faults",
    "acorn.checkpoint.load.read_checkpoint",
    "acorn.checkpoint.training_state.load_tensors",
    "acorn.checkpoint.tensor_files.load_file",
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("checkpoint", [None, "best"])
def test_a_run_that_saves_meanwhile_and_keeps_one_checkpoint(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, checkpoint: str | None
) -> None:
    shutil.rmtree(run.final)
    later = shutil.move(run.checkpoint(20), tmp_path / "later")

    def save() -> None:
        os.replace(later, run.checkpoint(20))
        write_sealed_json(run.best, {"step": 20, "loss": 0.5})
        rotate_checkpoints(run, 20, keep=1, also=[20])

    meanwhile(monkeypatch, reader, save)
    notes: list[str] = []
    loaded = load(run.root, checkpoint, progress=Notes(notes))
    assert loaded.step == 20
    assert is_from(loaded.model, run.checkpoint(20))
    is_chosen = checkpoint is None
    assert notes == [f"The run is not finished; using its checkpoint of step {loaded.step}."] * is_chosen
    assert run.checkpoint_steps() == [20]


def test_a_final_model_that_is_replaced_meanwhile(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    old = run.final.with_name("final.old")
    meanwhile(monkeypatch, "acorn.checkpoint.load.read_model_folder", lambda: os.replace(run.final, old))
    assert load(run.root).folder == old


@pytest.mark.parametrize("reader", READERS[:4])
def test_a_checkpoint_folder_that_is_removed_meanwhile(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """It was requested by its own path, so no other one is loaded instead."""
    meanwhile(monkeypatch, reader, lambda: rotate_checkpoints(run, 20, keep=1) and None)
    with pytest.raises(UsageError, match="was removed while it was being read") as caught:
        load(run.checkpoint(10))
    assert "name the run folder" in caught.value.fix


def test_permanent_damage_is_not_read_again_and_again(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run keeps saving while its final model is damaged."""
    flip_bit(run.final / "model.safetensors")
    real, looks = load_module.read_model_folder, []

    def read(folder: Path) -> Any:
        looks.append(folder)
        (run.checkpoints / f"step-{len(looks):08d}.new").mkdir()
        return real(folder)

    monkeypatch.setattr(load_module, "read_model_folder", read)
    with pytest.raises(DamageError, match=r"model\.safetensors"):
        load(run.root)
    assert len(looks) == MAX_ATTEMPTS


@pytest.mark.parametrize(("checkpoint", "said"), [("15", "10, 20"), ("newest", "last, best"), ("-1", "10, 20")])
def test_a_missing_checkpoint_is_refused(run: RunFolder, checkpoint: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(run.root, checkpoint)
    assert said in caught.value.fix


def test_best_without_a_validation(run: RunFolder) -> None:
    run.best.unlink()
    with pytest.raises(UsageError, match="best"):
        load(run.root, "best")


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"step": 20, "loss": 1.0}', "{", json.dumps(seal({"step": "ten"})), json.dumps(seal({}))]
)
def test_a_damaged_best_is_an_error(run: RunFolder, content: str) -> None:
    run.best.write_text(content)
    with pytest.raises(DamageError, match=r"best\.json"):
        load(run.root, "best")


def test_choosing_a_checkpoint_of_a_model_folder_is_refused(run: RunFolder) -> None:
    for folder in (run.final, run.checkpoint(10)):
        with pytest.raises(UsageError, match="no checkpoints to choose"):
            load(folder, "last")


def test_a_run_without_any_checkpoint(run: RunFolder) -> None:
    shutil.rmtree(run.final)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(UsageError, match="no model yet"):
        load(run.root)


@pytest.mark.parametrize("what", ["absent", "a file", "empty"])
def test_what_is_not_a_run_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "place"
    if what == "a file":
        path.write_text("x")
    if what == "empty":
        path.mkdir()
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(path) in caught.value.where


def test_weights_of_another_shape(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A checkpoint whose config and manifest were replaced."""
    config = ModelConfig(n_layer=1, n_embd=16, n_head=2, block_size=32, vocab_size=tokenizer.vocab_size)
    model = GPT(config)
    model.init_weights(0)
    other = Config(model=config.model_copy(update={"n_layer": 2}))
    save_checkpoint(tmp_path / "step-00000001", other, tokenizer.to_json(), model, [], Counters(step=1), {})
    with pytest.raises(DamageError, match=r"blocks\.1\.attention\.q_proj\.weight is missing"):
        load(tmp_path / "step-00000001")


def test_padding_rows_are_removed_and_missing_rows_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Fault 57: padded vocabulary ids cannot be sampled."""
    for padding in (5, -5):
        shape = {"n_layer": 1, "n_embd": 16, "n_head": 2, "block_size": 32, "tied": False}
        config = Config(model=ModelConfig.model_validate({**shape, "vocab_size": tokenizer.vocab_size + padding}))
        model = GPT(config.model)
        model.init_weights(0)
        folder = tmp_path / f"{padding}" / "step-00000001"
        save_checkpoint(folder, config, tokenizer.to_json(), model, [], Counters(step=1), {})
    loaded = load(tmp_path / "5" / "step-00000001")
    assert loaded.config.vocab_size == loaded.model.head.weight.size(0) == tokenizer.vocab_size
    with pytest.raises(InputError, match="entries"):
        load(tmp_path / "-5" / "step-00000001")


def test_a_model_folder_without_a_manifest_is_fine(run: RunFolder) -> None:
    (run.final / "manifest.json").unlink()
    assert load(run.final).config.n_embd == 16


def test_a_state_with_unknown_counters_is_refused(run: RunFolder) -> None:
    """A checkpoint of another version gives an AcornError, not a TypeError."""
    folder = run.checkpoint(20)
    state = json.loads((folder / "state.json").read_text())
    state["counters"]["novel"] = 1
    (folder / "state.json").write_text(json.dumps(state))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["state.json"] = {
        "sha256": sha256_of(folder / "state.json"),
        "bytes": (folder / "state.json").stat().st_size,
    }
    (folder / "manifest.json").write_text(json.dumps(seal(manifest)))
    with pytest.raises(DamageError, match="cannot be read"):
        load(folder)
