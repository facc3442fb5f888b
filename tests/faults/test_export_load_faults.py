"""Model folders: writing, reading, exporting."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from acorn import load
from acorn.checkpoint.model_folder import write_model_folder
from acorn.errors import UsageError
from acorn.folders import new_folder
from acorn.run_folder import RunFolder


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(20, 52).reshape(1, 32)
    with torch.no_grad():
        return model.head(model.hidden(ids))


@pytest.mark.fault(62)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_unchanged_after_writing_and_reading(
    pretrain, fine, finished: Path, tmp_path: Path, tied: bool
) -> None:
    """Fault 62: tied weights are stored once and are tied again; the model's results are equal."""
    run = finished
    if not tied:
        run = tmp_path / "run"
        fine(pretrain(run, "model.tied=false", "train.eval_every=0", "train.save_every=0", "train.steps=2"))
    stored = load_file(run / "final" / "model.safetensors")
    assert ("lm_head.weight" in stored) == (not tied)
    assert json.loads((run / "final" / "config.json").read_text())["tie_word_embeddings"] == tied
    exported, trained = load(run).model, load(run, "last").model
    assert (exported.head.weight is exported.token_embedding.weight) == tied
    assert torch.equal(logits_of(exported), logits_of(trained))


@pytest.mark.fault(62)
@pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
def test_weights_that_do_not_fit_the_config(acorn, refused, untouched, finished: Path, tmp_path: Path, damage) -> None:
    """Fault 62: a model is never built from tensors that do not match its config; each of them is named."""
    folder = shutil.copytree(finished / "final", tmp_path / "model")
    (folder / "manifest.json").unlink()
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "unknown":
        name = "model.layers.7.mlp.down_proj.weight"
        tensors[name] = torch.zeros(2)
    else:
        tensors[name] = tensors[name].T.contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with untouched(folder):
        done = acorn("generate", folder, "--prompt", "the")
    refused(done, 4, "The weights do not fit the model's config", name, str(folder))


@pytest.mark.fault(62)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_model_that_cannot_be_written(acorn, fine, refused, unfinished: Path, digest, number: int) -> None:
    """Fault 62: nothing of it remains; the checkpoints do, and the same command finishes the run."""
    run = RunFolder(unfinished)
    before = digest(run.checkpoints)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("acorn.checkpoint.model_folder.save_tensors", _failing(number))
        done = acorn("pretrain", "--resume", "--out", unfinished)
    refused(done, 6, str(run.final))
    assert not [path for path in unfinished.iterdir() if path.name.startswith("final")]
    assert digest(run.checkpoints) == before
    fine(acorn("pretrain", "--resume", "--out", unfinished))
    assert run.final.exists()


def _failing(number: int):
    import os

    def fail(path: Path, tensors: object) -> None:
        path.write_bytes(b"the beginning")
        raise OSError(number, os.strerror(number), str(path))

    return fail


@pytest.fixture
def outside(tmp_path: Path, finished: Path) -> Path:
    """A file outside the folder, which no index or manifest may refer to."""
    return Path(shutil.copy(finished / "final" / "model.safetensors", tmp_path / "outside.safetensors"))


@pytest.mark.fault(63)
@pytest.mark.parametrize("form", ["relative", "absolute", "windows", "inner"])
def test_an_index_that_refers_outside_its_folder(
    acorn, refused, untouched, finished: Path, tmp_path: Path, outside: Path, opened: list[str], form: str
) -> None:
    """Fault 63: files outside the folder that a model's index names are not read."""
    folder = shutil.copytree(finished / "final", tmp_path / "model")
    (folder / "manifest.json").unlink()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {
        "relative": "../outside.safetensors",
        "absolute": str(outside),
        "windows": "C:\\outside.safetensors",
        "inner": "inner/../../outside.safetensors",
    }
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, names[form])}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with untouched(tmp_path):
        opened.clear()
        done = acorn("generate", folder, "--prompt", "the")
        assert str(outside.resolve()) not in opened
    refused(done, 4, "not a safetensors file in this folder; it was not read", repr(names[form]), "index.json")


@pytest.mark.fault(63)
@pytest.mark.parametrize("place", ["checkpoints/step-00000008", "final", "data"])
@pytest.mark.parametrize("form", ["relative", "absolute"])
def test_a_manifest_that_refers_outside_its_folder(
    acorn, untouched, run: Path, outside: Path, opened: list[str], place: str, form: str
) -> None:
    """Fault 63: nor those that a manifest names."""
    path = run / place / "manifest.json"
    manifest = json.loads(path.read_text())
    depth = "../" * (len(Path(place).parts) + 1)
    name = f"{depth}{outside.name}" if form == "relative" else str(outside)
    assert (path.parent / name).resolve() == outside.resolve()
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": outside.stat().st_size}
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    with untouched(run):
        opened.clear()
        done = acorn("verify", run)
        assert str(outside.resolve()) not in opened
    assert done.returncode == 4
    assert str(path) in done.stderr
    assert "  fix:   " in done.stderr
    assert (
        f"DAMAGED  {'checkpoint' if 'step' in place else 'model     ' if place == 'final' else 'data      '}"
        in done.stdout
    )


@pytest.mark.fault(63)
def test_shards_outside_their_folder(
    pretrain, refused, untouched, shards: Path, tmp_path: Path, opened: list[str]
) -> None:
    """Fault 63: nor token shards."""
    elsewhere = Path(shutil.move(shards / "train-00000.bin", tmp_path / "train-00000.bin"))
    path = shards / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["train"]["shards"][0]["file"] = "../train-00000.bin"
    manifest["files"]["../train-00000.bin"] = manifest["files"].pop("train-00000.bin")
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    with untouched(shards):
        opened.clear()
        done = pretrain(tmp_path / "run", f"data.shards={shards}", text=None)
        assert str(elsewhere.resolve()) not in opened
    refused(done, 4, str(path), str(shards))


@pytest.mark.fault(64)
@pytest.mark.parametrize("kind", ["run", "shards", "folder of the user's"])
def test_a_target_that_exists(
    acorn, pretrain, refused, untouched, run: Path, shards: Path, text_file: Path, tokenizer_file: Path, tmp_path, kind
) -> None:
    """Fault 64: refused, with the alternatives, and unchanged."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious.txt").write_text("precious")
    prepare = ("data", "prepare", "--tokenizer", tokenizer_file, "--input", text_file, "--out")
    with untouched(tmp_path):
        if kind == "run":
            refused(pretrain(run), 2, f"The folder {run} is not empty", "--resume", "--out")
        elif kind == "shards":
            refused(acorn(*prepare, shards), 2, f"{shards} already exists", "name another folder")
        else:
            refused(pretrain(mine), 2, f"The folder {mine} is not empty and holds no run", "--out")
            refused(acorn(*prepare, mine), 2, f"{mine} already exists", "name another folder")


@pytest.mark.fault(64)
@pytest.mark.parametrize("name", ["config.toml", "tokenizer.json", "metrics.jsonl", "report.html", "notes.txt"])
def test_a_folder_of_the_user_is_not_resumed(acorn, pretrain, refused, untouched, tmp_path: Path, name: str) -> None:
    """Fault 64: refused as without --resume, even if a file is named like one of a run; the demo always resumes."""
    (tmp_path / name).write_text("precious")
    told = f"The folder {tmp_path} is not empty and holds no run"
    with untouched(tmp_path):
        refused(pretrain(tmp_path, "--resume"), 2, told, "name another folder")
        refused(acorn("pretrain", "--resume", "--out", tmp_path), 2, told)
        done = acorn("demo", "--out", tmp_path)
        assert done.returncode == 2
        assert told in " ".join(done.stderr.split())


@pytest.mark.fault(64)
def test_a_model_folder_that_exists(run: Path, untouched) -> None:
    """Fault 64: a model does not overwrite another one unless requested."""
    loaded = load(run)
    with untouched(run), pytest.raises(UsageError) as caught:
        write_model_folder(run / "final", loaded.model, loaded.tokenizer, "card", replace=False)
    assert caught.value.exit_code == 2
    assert "already exists" in caught.value.what
    assert caught.value.where == str(run / "final")
    assert "name another folder" in caught.value.fix
    write_model_folder(run / "final", loaded.model, loaded.tokenizer, "card", replace=True)
    assert (run / "final" / "README.md").read_text() == "card"


@pytest.mark.fault(62)
def test_an_export_that_crashes_its_runtime(
    acorn, refused, untouched, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 62: a program that crashes with the exported model affects neither acorn nor existing files."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -SEGV $$\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with untouched(tmp_path):
        done = acorn("export", run, "--format", "hf", "--out", tmp_path / "out")
        assert "it crashed (SIGSEGV)" in done.stderr
        assert done.returncode == 4
        assert done.stdout == ""


@pytest.mark.fault(64)
def test_an_export_over_something_else(acorn, refused, untouched, run: Path, tmp_path: Path) -> None:
    """Fault 64: even --force replaces nothing but an export."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious.txt").write_text("precious")
    with untouched(tmp_path):
        for place in (mine, run, run / "final", run / "checkpoints" / "step-00000008"):
            refused(acorn("export", run, "--format", "hf", "--out", place), 2, f"{place} already exists", "--force")
            done = acorn("export", run, "--format", "hf", "--out", place, "--force")
            refused(done, 2, "is not an export that --force could replace", "name another folder")
        refused(
            acorn("export", run, "--format", "hf", "--out", run / "final" / "in"), 2, "the folder of the model itself"
        )


@pytest.mark.fault(64)
def test_an_export_with_files_of_the_user(acorn, refused, untouched, run: Path, tmp_path: Path) -> None:
    """Fault 64: --force does not remove what a user added to an export, and names it."""
    out = shutil.copytree(run / "final", tmp_path / "out")
    (out / "manifest.json").unlink()
    with new_folder(tmp_path / "export") as folder:
        shutil.copytree(out, folder, dirs_exist_ok=True)
        (folder / "parity.json").write_text("{}")
    (tmp_path / "export" / "precious.txt").write_text("precious")
    with untouched(tmp_path):
        done = acorn("export", run, "--format", "hf", "--out", tmp_path / "export", "--force")
        refused(done, 2, "not part of the export: precious.txt", "move them elsewhere")


@pytest.mark.fault(65)
@pytest.mark.parametrize(
    ("override", "code", "what"),
    [
        ("tokenizer.kind=wordpiece", 3, "this wordpiece tokenizer"),
        ("model.architecture=original", 2, "original uses ReLU"),
    ],
)
def test_a_model_that_a_format_cannot_express(
    acorn, pretrain, fine, refused, untouched, tmp_path: Path, override: str, code: int, what: str
) -> None:
    """Fault 65: no file that would give wrong results is written; the message names the other format."""
    run = tmp_path / "run"
    fine(pretrain(run, override, "train.eval_every=0", "train.save_every=0", "train.steps=1"))
    with untouched(tmp_path):
        refused(acorn("export", run, "--format", "gguf", "--out", tmp_path / "out"), code, what, "use --format hf")
