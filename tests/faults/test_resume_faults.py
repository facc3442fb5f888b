"""Resuming a run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from acorn.config_files import load_run_config, to_toml, with_values
from acorn.data.made_from import read_made_from
from acorn.files import write_sealed_json
from acorn.report.metrics_log import read_metrics
from acorn.run import environment
from acorn.run_folder import RunFolder

CLOCK = ("seconds", "tokens_per_second", "mfu")


def metrics_of(run: Path) -> list[dict]:
    """Metrics without the fields that depend on the clock."""
    records = read_metrics(run / "metrics.jsonl")
    return [{key: value for key, value in record.items() if key not in CLOCK} for record in records]


def weights_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights and optimizer state."""
    folder = RunFolder(run).checkpoint(step)
    return {
        f"{name}:{key}": tensor
        for name in ("model", "optimizer")
        for key, tensor in load_file(folder / f"{name}.safetensors").items()
    }


def assert_equal_runs(one: Path, other: Path, step: int, digest) -> None:
    """Checks that weights, optimizer state and final model are bit-identical, and metrics equal except times."""
    first, second = weights_of(one, step), weights_of(other, step)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert digest(one / "final") == digest(other / "final")
    assert metrics_of(one) == metrics_of(other)


@pytest.mark.fault(38)
@pytest.mark.parametrize("damage", ["bit flipped", "cut short", "file missing", "no manifest"])
def test_a_damaged_newest_checkpoint(acorn, fine, finished: Path, unfinished: Path, digest, flip, damage: str) -> None:
    """Fault 38: the newest intact one is used, with a note, and the run ends bit-identical."""
    newest = RunFolder(unfinished).checkpoint(8)
    file = newest / "optimizer.safetensors"
    if damage == "bit flipped":
        flip(file)
    elif damage == "cut short":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "file missing":
        file.unlink()
    else:
        file = newest / "manifest.json"
        file.unlink()
    done = acorn("generate", unfinished, "--max-new-tokens", 2)
    fine(done, "Using the checkpoint of step 4; newer ones are damaged", str(file))
    done = acorn("pretrain", "--resume", "--out", unfinished)
    fine(done, "Using the checkpoint of step 4; newer ones are damaged", str(file), "Resuming from step 4")
    assert_equal_runs(finished, unfinished, 8, digest)


@pytest.mark.fault(39)
@pytest.mark.parametrize("command", ["resume", "resume with a config", "generate", "evaluate"])
def test_all_checkpoints_damaged(acorn, pretrain, refused, untouched, unfinished: Path, flip, command: str) -> None:
    """Fault 39: a run is never restarted silently; each checkpoint is named with its damage."""
    run = RunFolder(unfinished)
    flip(run.checkpoint(4) / "model.safetensors")
    (run.checkpoint(8) / "state.json").unlink()
    with untouched(unfinished):
        if command == "resume with a config":
            done = pretrain(unfinished, "--resume")
        elif command == "resume":
            done = acorn("pretrain", "--resume", "--out", unfinished)
        else:
            done = acorn(command, unfinished)
    broken = (run.checkpoint(4) / "model.safetensors", run.checkpoint(8) / "state.json")
    refused(done, 4, "None of the run's checkpoints is intact", *map(str, broken), str(run.checkpoints), "from a copy")


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("model.n_layer=3", "model.n_layer: 1 in the run, 3 now"),
        ("model.architecture=gpt2", 'model.architecture: "modern" in the run, "gpt2" now'),
        ("optimizer.lr=0.5", "optimizer.lr: 0.01 in the run, 0.5 now"),
        ("schedule.name=cosine", 'schedule.name: "linear" in the run, "cosine" now'),
        ("tokenizer.vocab_size=310", "tokenizer.vocab_size: 300 in the run, 310 now"),
        ("data.source=other.txt", "data.source: ["),
        ("train.seed=7", "train.seed: "),
        ("train.precision=bf16", 'train.precision: "fp32" in the run, "bf16" now'),
    ],
)
def test_a_change_that_is_not_allowed(pretrain, refused, untouched, run: Path, override, difference) -> None:
    """Fault 40: the difference is shown with the alternatives, and nothing is changed."""
    key = override.partition("=")[0]
    with untouched(run):
        done = pretrain(run, override, "--resume")
    refused(done, 2, "started with different settings", difference, "config.toml", "--out")
    is_made = key.startswith(("data.", "tokenizer.", "model."))
    assert (f"--allow-change {key}" in done.stderr) == (not is_made)


@pytest.mark.fault(40)
def test_all_changes_are_shown(pretrain, acorn, refused, fine, untouched, unfinished: Path) -> None:
    """Fault 40: together; and an allowed change is reported."""
    with untouched(unfinished):
        done = pretrain(unfinished, "optimizer.lr=0.5", "train.batch_size=8", "--resume")
    refused(done, 2, "optimizer.lr: ", "train.batch_size: 4 in the run, 8 now")
    done = acorn("pretrain", "--resume", "--out", unfinished, "optimizer.lr=0.5", "--allow-change", "optimizer.lr")
    fine(done, "Changed on resume: optimizer.lr: 0.01 -> 0.5")


@pytest.mark.fault(40)
def test_the_text_of_a_run_changed(acorn, refused, fine, untouched, unfinished: Path, write_rows) -> None:
    """Fault 40: shards of another text with the same tokenizer."""
    data = unfinished / "data"
    shutil.rmtree(data)
    prepared = ("data", "prepare", "--tokenizer", unfinished / "tokenizer.json", "--out", data)
    fine(acorn(*prepared, "--input", write_rows("other.jsonl", seed=5)))
    with untouched(unfinished):
        done = acorn("pretrain", "--resume", "--out", unfinished)
    refused(done, 4, "The token shards are not those that the run was started with", str(data), "restore the original")


@pytest.fixture
def own_text(text_file: Path, tmp_path: Path) -> Path:
    """A folder with a text file that a test may change."""
    folder = tmp_path / "texts"
    folder.mkdir()
    shutil.copy(text_file, folder / "my.txt")
    return folder


@pytest.mark.fault(40)
@pytest.mark.parametrize("kind", ["text", "tokenizer", "folder"])
def test_the_source_of_shards_changed_before_the_first_step(
    acorn, pretrain, refused, fine, digest, own_text: Path, tokenizer_file: Path, tmp_path: Path, kind: str
) -> None:
    """Fault 40: tokenizer and shards are created again, as in a new run; the change is reported."""
    tokenizer = Path(shutil.copy(tokenizer_file, tmp_path / "tokenizer.json"))
    more = {"tokenizer": [f"tokenizer.path={tokenizer}"], "folder": ["data.document=line"], "text": []}[kind]
    text = own_text / "my.txt"
    refused(pretrain(tmp_path / "run", "model.block_size=40000", *more, text=own_text), 3, "fewer than one window")
    if kind == "text":
        text.write_text(text.read_text().replace("dog", "fox"))  # of the same size
        changed = f"train text: {text}: "
    elif kind == "folder":
        changed = f"train text: {shutil.copy(text, own_text / 'more.txt')}: was absent"
    else:
        fine(acorn("tokenizer", "train", "--vocab-size", 290, "--input", text, "--out", tokenizer))
        changed = f"tokenizer.path: {tokenizer}: "
    done = pretrain(tmp_path / "run", *more, "train.steps=1", "--resume", text=own_text)
    fine(done, f"Changed since the token shards were made: {changed}", "Making tokenizer and token shards again")
    fine(pretrain(tmp_path / "fresh", *more, "train.steps=1", text=own_text))
    for name in ("data", "tokenizer.json", "final"):
        assert digest(tmp_path / "run" / name) == digest(tmp_path / "fresh" / name)


@pytest.mark.fault(40)
@pytest.mark.parametrize("is_finished", [True, False], ids=["finished", "not finished"])
def test_the_source_of_shards_changed_after_the_first_step(
    pretrain, acorn, refused, fine, untouched, own_text: Path, tokenizer_file: Path, tmp_path: Path, is_finished: bool
) -> None:
    """Fault 40: refused, with the old and new state; if it is restored or moved away, the run resumes."""
    out, text = tmp_path / "run", own_text / "my.txt"
    tokenizer = Path(shutil.copy(tokenizer_file, tmp_path / "tokenizer.json"))
    steps = [] if is_finished else ["train.steps=9"]
    fine(pretrain(out, f"tokenizer.path={tokenizer}", text=own_text))
    before = {path: path.read_bytes() for path in (text, tokenizer)}
    for path, content in before.items():
        path.write_bytes(content + b"\n")
        with untouched(out):
            done = acorn("pretrain", "--resume", "--out", out, *steps)
        digests = (hashlib.sha256(told).hexdigest()[:12] for told in (content, content + b"\n"))
        refused(
            done,
            2,
            "files have changed since the run started",
            f"{path}: was {len(content):,} bytes",
            *digests,
            str(out),
            "--out",
        )
        path.write_bytes(content)
    text.rename(tmp_path / "my.txt")
    with untouched(out):
        fine(acorn("pretrain", "--resume", "--out", out), "already complete")
    if not is_finished:
        fine(acorn("pretrain", "--resume", "--out", out, *steps), "The text cannot be compared", "Resuming from step 8")


@pytest.mark.fault(40)
def test_a_text_that_was_only_copied_or_touched(
    pretrain, acorn, fine, untouched, own_text: Path, tmp_path: Path
) -> None:
    """Fault 40: it is the same; its digest is computed once, because its modification time is recorded then."""
    out, text = tmp_path / "run", own_text / "my.txt"
    fine(pretrain(out, text=own_text))
    os.utime(text, ns=(1, 1))
    with untouched(out):
        fine(acorn("pretrain", "--resume", "--out", out), "already complete")
    fine(acorn("pretrain", "--resume", "--out", out, "train.steps=9"), "Resuming from step 8")
    assert read_made_from(RunFolder(out)).text["train"][0].changed_ns == 1


@pytest.mark.fault(40)
@pytest.mark.parametrize("fault", ["absent", "pipe", "no UTF-8"])
def test_a_changed_text_beside_an_unreadable_one(
    pretrain, acorn, fine, refused, untouched, own_text: Path, tmp_path: Path, fault: str
) -> None:
    """Fault 40: each readable file is compared; the others are reported."""
    out, text, more = tmp_path / "run", own_text / "my.txt", tmp_path / "more.txt"
    more.write_text("A red house and an old tree.\n" * 3)
    fine(pretrain(out, f'data.source=["{more}", "{text}"]', "data.document=line", text=None))
    more.unlink()
    if fault == "pipe":
        os.mkfifo(more)
    elif fault == "no UTF-8":
        more.write_bytes(b"\xff\xfe caf\xe9")
    resume = ("pretrain", "--resume", "--out", out)
    if fault != "no UTF-8":
        fine(acorn(*resume, "train.steps=9"), "Part of the text cannot be compared", str(more), "Resuming from step 8")
    content = text.read_text()
    text.write_text(content.replace("dog", "fox"))
    with untouched(out):
        refused(
            acorn(*resume),
            2,
            "files have changed since the run started",
            f"train text: {text}: was {len(content):,} bytes",
        )


@pytest.mark.fault(40)
def test_a_missing_file_of_a_folder_of_text(
    pretrain, acorn, fine, refused, untouched, own_text: Path, tmp_path: Path
) -> None:
    """Fault 40: the run resumes as if it were there; a changed or new file is still refused."""
    (own_text / "more.txt").write_text("A red house and an old tree.\n" * 3)
    out, fresh = tmp_path / "run", tmp_path / "fresh"
    fine(pretrain(out, "data.document=line", text=own_text))
    refused(pretrain(fresh, "model.block_size=40000", "data.document=line", text=own_text), 3, "fewer than one window")
    (own_text / "more.txt").unlink()
    resume = ("pretrain", "--resume", "--out", out)
    fine(acorn(*resume, "train.steps=9"), f"Missing: train text: {own_text / 'more.txt'}: ", "Resuming from step 8")
    assert [Path(record.name).name for record in read_made_from(RunFolder(out)).text["train"]] == ["more.txt", "my.txt"]
    fine(
        pretrain(fresh, "data.document=line", "train.steps=1", "--resume", text=own_text),
        "more.txt: was 87 bytes",
        "Making tokenizer and token shards again",
    )
    (own_text / "other.txt").write_text("The cat slept.\n")
    with untouched(out):
        refused(acorn(*resume), 2, f"{own_text / 'other.txt'}: was absent")


@pytest.fixture
def at_home(acorn, fine, settings: list[str], own_text: Path) -> Path:
    """A run `r` that was started with a relative path to its text, in the folder of both."""
    fine(acorn("pretrain", "small", "data.source=my.txt", *settings, "--out", "r", cwd=own_text))
    return own_text


@pytest.mark.fault(40)
def test_resuming_from_another_folder(
    acorn, fine, refused, untouched, settings: list[str], at_home: Path, tmp_path: Path
) -> None:
    """Fault 40: the run's relative paths are relative to where it was started, those given now to the current
    folder."""
    out, away = at_home / "r", tmp_path / "away"
    away.mkdir()
    text = at_home / "my.txt"
    (away / "my.txt").write_text("other text\n" * 50)
    resume = ("pretrain", "--resume", "--out", out)
    done = acorn(*resume, "train.steps=9", cwd=away)
    fine(done, "Resuming from step 8")
    assert "cannot be compared" not in done.stderr
    named = ("pretrain", "small", "data.source=my.txt", *settings, "train.steps=10", "--resume", "--out", out)
    with untouched(out):
        refused(acorn(*named, cwd=away), 2, f"in {away} it names different text than in {at_home}")
    shutil.copy(text, away / "my.txt")
    fine(acorn(*named, cwd=away), "Resuming from step 9")  # an equal copy
    text.write_text(text.read_text().replace("dog", "fox"))
    with untouched(out):
        refused(acorn(*resume, cwd=away), 2, "files have changed since the run started", f"train text: {text}: ")


@pytest.mark.fault(40)
@pytest.mark.parametrize("moved", [False, True])
def test_shards_are_created_again_from_another_folder(
    acorn, fine, refused, digest, at_home: Path, tmp_path: Path, moved: bool
) -> None:
    """Fault 40: from the run's text, also if run and text were moved together; before the first step too."""
    away = tmp_path / "away"
    away.mkdir()
    (away / "my.txt").write_text("other text\n" * 50)
    before = digest(at_home / "r" / "data")
    home = at_home.rename(tmp_path / "home") if moved else at_home
    shutil.rmtree(home / "r" / "data")
    resume = ("pretrain", "--resume", "--out", home / "r")
    fine(acorn(*resume, "train.steps=9", cwd=away), "from the text again", "Resuming from step 8")
    assert digest(home / "r" / "data") == before
    for name in ("data", "checkpoints"):
        shutil.rmtree(home / "r" / name)
    for name in ("evaluation.json", "metrics.jsonl", "samples.jsonl"):
        (home / "r" / name).unlink()
    shutil.rmtree(home / "r" / "final")
    fine(acorn(*resume, "train.steps=1", cwd=away))
    assert digest(home / "r" / "data") == before
    (home / "my.txt").write_text((home / "my.txt").read_text().replace("dog", "fox"))
    refused(acorn(*resume, cwd=away), 2, f"train text: {home / 'my.txt'}: ")


@pytest.mark.fault(40)
def test_a_run_without_a_record_of_its_sources(
    pretrain, acorn, fine, refused, unfinished: Path, own_text: Path, tmp_path: Path
) -> None:
    """Fault 40: as from earlier versions. It resumes with a note; before the first step everything is created again."""
    (unfinished / "sources.json").unlink()
    fine(acorn("pretrain", "--resume", "--out", unfinished), "no sources.json", "cannot check")
    assert not (unfinished / "sources.json").exists()
    out = tmp_path / "begun"
    refused(pretrain(out, "model.block_size=40000", text=own_text), 3, "fewer than one window")
    (out / "sources.json").unlink()
    shutil.copytree(out, tmp_path / "absent")
    fine(pretrain(out, "train.steps=1", "--resume", text=own_text), "cannot check", "token shards again")
    (own_text / "my.txt").unlink()
    done = pretrain(tmp_path / "absent", "train.steps=1", "--resume", text=own_text)
    fine(done, "cannot check", "own token shards")


@pytest.mark.fault(40)
def test_the_record_of_the_text_was_edited(acorn, refused, untouched, unfinished: Path) -> None:
    """Fault 40: it is a record and must not be edited; without it the run resumes."""
    record = unfinished / "sources.json"
    record.write_text(record.read_text().replace('"size": ', '"size": 1'))
    with untouched(unfinished):
        done = acorn("pretrain", "--resume", "--out", unfinished)
        assert f"{record}: " in acorn("verify", unfinished).stderr
    refused(done, 4, str(record), "remove it")


@pytest.fixture
def begun_on_cuda(unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same run, as if it had been started on a GPU that is no longer available."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = RunFolder(unfinished)
    config = to_toml(with_values(load_run_config(run.config), {"train.device": "cuda"}))
    run.config.write_text(config)
    for step in run.checkpoint_steps():
        folder = run.checkpoint(step)
        (folder / "config.toml").write_text(config)
        manifest = {**json.loads((folder / "manifest.json").read_text())}
        content = config.encode()
        manifest["files"]["config.toml"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        write_sealed_json(folder / "manifest.json", manifest)
    return unfinished


@pytest.mark.fault(46)
@pytest.mark.parametrize("config", ["named", "its own"])
def test_the_device_of_a_run_is_unavailable(
    acorn, pretrain, fine, refused, untouched, begun_on_cuda: Path, config: str
) -> None:
    """Fault 46: the message has the command that resumes on this machine, not `auto`, which would change nothing.

    The command can be pasted into a shell, and keeps the changes of the command line.
    """
    out = begun_on_cuda.rename(begun_on_cuda.with_name("it's mine"))
    more = ("train.steps=9", "optimizer.lr=0.005", "--allow-change=optimizer.lr", "--resume")
    with untouched(out):
        done = pretrain(out, *more) if config == "named" else acorn("pretrain", *more, "--out", out)
    refused(done, 2, "started on cuda, which is unavailable here", f"--resume --out {shlex.quote(str(out))} ")
    assert "or auto" not in done.stderr
    command = shlex.split(done.stderr.partition("bit-identical: acorn ")[2].split("\n")[0])
    fine(
        acorn(*command),
        'Changed on resume: train.device: "cuda" -> "cpu"',
        "Changed on resume: optimizer.lr: 0.01 -> 0.005",
        "Changed on resume: train.steps: 8 -> 9",
        "Resuming from step 8",
    )
    assert shlex.split(json.loads((out / "environment.json").read_text())["command_line"]) == ["acorn", *command]


@pytest.mark.fault(46)
@pytest.mark.parametrize("config", ["named", "its own"])
def test_the_device_of_a_run_without_a_checkpoint_is_unavailable(
    acorn, pretrain, fine, refused, begun_on_cuda: Path, config: str
) -> None:
    """Fault 46: nothing depends on it yet, so it is chosen again; an unavailable one that is requested is refused."""
    out = begun_on_cuda
    for path in (out / "checkpoints", out / "metrics.jsonl", out / "samples.jsonl"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = pretrain(out, "train.device=cuda", "--resume")
    refused(done, 2, "cuda is unavailable on this machine", "choose cpu or auto")
    fine(pretrain(out, "--resume") if config == "named" else acorn("pretrain", "--resume", "--out", out))
    assert load_run_config(out / "config.toml").train.device == "cpu"


@pytest.mark.fault(40)
@pytest.mark.parametrize("whole", [True, False], ids=["valid TOML", "no TOML"])
def test_the_runs_config_was_edited(acorn, refused, untouched, unfinished: Path, whole: bool) -> None:
    """Fault 40: a run's own config is a record, not a place to change settings."""
    config = unfinished / "config.toml"
    text = config.read_text()
    assert "\nlr = 0.01\n" in text
    config.write_text(text.replace("\nlr = 0.01\n", "\nlr = 0.5\n" if whole else "\nlr = \n"))
    with untouched(unfinished):
        done = acorn("pretrain", "--resume", "--out", unfinished)
    refused(done, 4, str(config))


@pytest.mark.fault(40)
def test_the_runs_tokenizer_was_changed(acorn, refused, untouched, unfinished: Path, text_file: Path) -> None:
    """Fault 40: the run's tokenizer differs from that in the checkpoints."""
    path = unfinished / "tokenizer.json"
    other = unfinished.parent / "other.json"
    assert acorn("tokenizer", "train", "--vocab-size", 280, "--input", text_file, "--out", other).returncode == 0
    shutil.move(other, path)
    with untouched(unfinished):
        done = acorn("pretrain", "--resume", "--out", unfinished)
    refused(done, 4, str(path))


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    ("change", "note"),
    [
        ("acorn", "No longer bit-identical to an uninterrupted run: acorn: "),
        ("torch", f"No longer bit-identical to an uninterrupted run: torch: {torch.__version__} then, 9.9.9 now"),
        ("machine", "No longer bit-identical to an uninterrupted run: machine: "),
        ("threads", "No longer bit-identical to an uninterrupted run: threads: 1 then, 2 now"),
        ("precision", "No longer bit-identical to an uninterrupted run: precision: fp32 then, bf16 now"),
    ],
)
def test_a_change_that_affects_bit_identity(
    pretrain, fine, monkeypatch, unfinished: Path, change: str, note: str
) -> None:
    """Fault 41: the run resumes, reports that it is no longer bit-identical, and records that."""
    shutil.rmtree(RunFolder(unfinished).checkpoint(8))
    more = []
    if change == "acorn":
        monkeypatch.setattr(environment, "_version", lambda package: "9.9.9")
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9.9")
    elif change == "machine":
        monkeypatch.setattr(environment, "_processor", lambda: "an abacus")
    elif change == "threads":
        more = ["train.threads=2"]
    else:  # requested, with --allow-change
        more = ["train.precision=bf16", "--allow-change=train.precision"]
    done = pretrain(unfinished, *more, "--resume")
    fine(done, "Resuming from step 4", note)
    state = json.loads((RunFolder(unfinished).checkpoint(8) / "state.json").read_text())
    assert state["counters"]["undisturbed"] is False
    assert [r["step"] for r in read_metrics(unfinished / "metrics.jsonl") if r["split"] == "train"] == [*range(1, 9)]


@pytest.mark.fault(42)
def test_resuming_at_the_end_of_an_epoch_and_in_a_later_one(
    pretrain, fine, digest, stop_after, write_rows, tmp_path: Path
) -> None:
    """Fault 42: stopped right after an epoch, and in the third; it ends bit-identical to an uninterrupted run."""
    # Batches of one window, so that an epoch ends exactly between two steps.
    text, held_out = write_rows("small.jsonl", rows=16), write_rows("valid.jsonl", rows=5, seed=1)
    undisturbed = ("train.eval_every=0", "train.save_every=0")
    small = ("train.batch_size=1", "train.micro_batch_size=1", f"data.valid_source={held_out}", *undisturbed)
    fine(pretrain(tmp_path / "probe", "train.steps=1", *small, text=text))
    manifest = json.loads((tmp_path / "probe" / "data" / "manifest.json").read_text())
    windows = -(-(manifest["splits"]["train"]["tokens"] - 1) // 32)
    steps = f"train.steps={3 * windows}"
    fine(pretrain(tmp_path / "whole", steps, *small, text=text))
    records = [r for r in read_metrics(tmp_path / "whole" / "metrics.jsonl") if r["split"] == "train"]
    ends = [record["step"] for record in records if record["epoch"] == int(record["epoch"])]
    assert len(ends) >= 2
    for stop in (ends[0], ends[1] + 2):
        stop_after(stop)
        done = pretrain(tmp_path / "cut", steps, *small, "--resume", text=text)
        assert done.returncode == 143, done.stderr
    fine(pretrain(tmp_path / "cut", steps, *small, "--resume", text=text), f"Resuming from step {ends[1] + 2}")
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", 3 * windows, digest)


@pytest.mark.fault(43)
@pytest.mark.parametrize("config", ["named", "its own"])
def test_resuming_a_finished_run(acorn, pretrain, fine, untouched, run: Path, config: str) -> None:
    """Fault 43: nothing is written."""
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock" and path.is_file()}
    with untouched(run):
        done = pretrain(run, "--resume") if config == "named" else acorn("pretrain", "--resume", "--out", run)
    fine(done, "The run was already complete; nothing was changed")
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.fault(43)
def test_a_finished_run_with_more_steps(pretrain, fine, run: Path) -> None:
    """Fault 43: it resumes, and the jump of the schedule is reported."""
    done = pretrain(run, "train.steps=10", "--resume")
    fine(done, "Resuming from step 8", "learning rate changes from", "No longer bit-identical to an uninterrupted run")
    records = [r for r in read_metrics(run / "metrics.jsonl") if r["split"] == "train"]
    assert [record["step"] for record in records] == list(range(1, 11))
    assert RunFolder(run).checkpoint_steps()[-1] == 10
    assert json.loads((run / "evaluation.json").read_text())["step"] == 10


class Bomb:
    """An object that leaves a mark when its pickle is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def bomb(tmp_path: Path):
    """Writes pickles that leave a mark when they are opened; checks that there is none at the end."""
    mark = tmp_path / "opened"

    def write(path: Path) -> Path:
        path.write_bytes(pickle.dumps(Bomb(mark)))
        return path

    yield write
    assert not mark.exists()


@pytest.mark.fault(44)
@pytest.mark.parametrize("name", ["optimizer.pt", "pytorch_model.bin", "notes.txt", "model.safetensors.pkl"])
def test_a_foreign_file_in_a_checkpoint(
    acorn, fine, untouched, unfinished: Path, bomb, opened: list[str], name: str
) -> None:
    """Fault 44: it is named, and nothing of that checkpoint is read; the run resumes from the one before."""
    newest = RunFolder(unfinished).checkpoint(8)
    bomb(newest / name)
    for command in ("generate", "verify"):
        with untouched(unfinished):
            opened.clear()
            done = acorn(command, newest)
            read = [path for path in opened if path.startswith(str(newest.resolve()))]
        assert read == []
        assert done.returncode == 4
        assert f"{newest / name}: does not belong in a checkpoint; nothing was read" in done.stderr
        assert "  where: " in done.stderr
        assert "  fix:   " in done.stderr
    opened.clear()
    fine(acorn("pretrain", "--resume", "--out", unfinished), "Resuming from step 4", str(newest / name))
    assert str((newest / name).resolve()) not in opened


@pytest.mark.fault(44)
def test_a_pickle_in_place_of_tensors(acorn, refused, unfinished: Path, bomb) -> None:
    """Fault 44: under the name of a checkpoint's file: its digest differs."""
    newest = RunFolder(unfinished).checkpoint(8)
    bomb(newest / "model.safetensors")
    refused(acorn("generate", newest), 4, str(newest / "model.safetensors"))


@pytest.mark.fault(44)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_a_model_folder_of_pickles(acorn, refused, finished: Path, tmp_path: Path, bomb, opened, name: str) -> None:
    """Fault 44: the file is named, and it is not opened."""
    folder = tmp_path / "model"
    shutil.copytree(finished / "final", folder)
    (folder / "model.safetensors").unlink()
    (folder / "manifest.json").unlink()
    path = bomb(folder / name)
    opened.clear()
    refused(acorn("generate", folder), 4, f"The weights are a pickle ({name}", "it was not read", str(folder))
    assert str(path.resolve()) not in opened


ENDINGS = ["pt", "pth", "pkl", "pickle", "npy", "npz", "bin", "ckpt"]


@pytest.mark.fault(44)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_pickle_as_an_argument(
    acorn, refused, text_file: Path, tokenizer_file: Path, tmp_path: Path, bomb, opened, ending: str
) -> None:
    """Fault 44: as config, tokenizer, run or text it is refused with its name, and not opened."""
    path = bomb(tmp_path / f"mine.{ending}")
    new = tmp_path / "new"
    prepare = ("data", "prepare", "--out", new)
    commands = [
        ("pretrain", path, "--out", new),
        ("pretrain", "small", f"data.source={path}", "--out", new),
        ("pretrain", "small", f"data.source={text_file}", f"tokenizer.path={path}", "train.steps=1", "--out", new),
        ("tokenizer", "inspect", path),
        ("tokenizer", "train", "--vocab-size", 300, "--input", path, "--out", new),
        (*prepare, "--tokenizer", path, "--input", text_file),
        (*prepare, "--tokenizer", tokenizer_file, "--input", path),
        ("generate", path),
        ("evaluate", path),
        ("verify", path),
    ]
    before = list(tmp_path.iterdir())
    for command in commands:
        opened.clear()
        done = acorn(*command)
        assert done.returncode in (2, 3), done.stderr
        refused(done, done.returncode, path.name)
        assert str(path.resolve()) not in opened, command
    assert list(tmp_path.iterdir()) == before
