"""`acorn export` as a user runs it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command_line import Done

from acorn.export import runtimes

Acorn = Callable[..., Done]


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes.Runtime, "installed", False)


def test_a_run_is_exported_to_transformers(acorn: Acorn, run: Path, tmp_path: Path) -> None:
    done = acorn("export", run, "--format", "hf", "--dtype", "bf16", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    assert rows["folder"].strip() == str(tmp_path / "out")
    assert rows["runtime"].strip().startswith("transformers 5.")
    assert "2,000 of 2,000 held-out lines and 200 of 200 hard strings equal" in rows["tokens"]
    assert rows["lines from"].strip().startswith("the run's held-out text (")
    assert "standard deviations; 0.25 allowed" in rows["logits"]
    assert "of 200 equal" in rows["greedy tokens"]
    done = acorn("generate", tmp_path / "out", "--prompt", "Sentence", "--greedy", "--max-new-tokens", "3")
    assert done.returncode == 0, done.stderr
    assert acorn("verify", tmp_path / "out").returncode == 0


@pytest.mark.usefixtures("no_runtime")
def test_the_json_is_the_report_beside_the_model(acorn: Acorn, run: Path, tmp_path: Path) -> None:
    done = acorn("export", run, "--format", "gguf", "--dtype", "q8_0", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown.pop("folder") == str(tmp_path / "out")
    assert shown == json.loads((tmp_path / "out" / "parity.json").read_text())
    again = acorn("export", run, "--format", "gguf", "--dtype", "q8_0", "--out", tmp_path / "again")
    assert re.search(r"^logits +not checked$", again.stdout, re.M)
    assert "not installed; install it with: pip install -c constraints.txt '.[llama]'" in again.stdout
    for name in ("model.gguf", "parity.json", "README.md"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.usefixtures("no_runtime")
def test_a_gguf_export_is_verified_and_refused_as_a_run(acorn: Acorn, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert acorn("export", run, "--format", "gguf", "--out", out).returncode == 0
    done = acorn("verify", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["intact", "gguf", str(out)]
    done = acorn("generate", out, "--prompt", "a")
    assert done.returncode == 2
    assert "a GGUF model, which acorn can write but not read" in done.stderr
    content = bytearray((out / "model.gguf").read_bytes())
    content[-7] ^= 1
    (out / "model.gguf").write_bytes(content)
    done = acorn("verify", out, "--json")
    assert done.returncode == 4
    (folder,) = json.loads(done.stdout)["folders"]
    assert folder["kind"] == "gguf"
    assert "model.gguf" in folder["faults"][0]
    assert "SHA-256" in folder["faults"][0]


@pytest.mark.usefixtures("no_runtime")
def test_the_card_tells_of_the_checkpoint(acorn: Acorn, run: Path, tmp_path: Path) -> None:
    """That of final/ goes along; an earlier checkpoint's has its own steps, and no figures of other weights."""
    cards = {}
    for name, more in (("final", ()), ("last", ("--checkpoint", "last")), ("4", ("--checkpoint", "4"))):
        done = acorn("export", run, "--format", "hf", *more, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        cards[name] = (tmp_path / name / "README.md").read_text()
    assert cards["final"] == (run / "final" / "README.md").read_text() == cards["last"]
    assert "| steps | 4 |" in cards["4"]
    assert "No split was evaluated." in cards["4"]
    assert "| license | not stated; see the source |" in cards["4"]
    results = yaml.safe_load(cards["final"].split("---\n")[1])["model-index"][0]["results"]
    assert [metric["type"] for metric in results[0]["metrics"]][:1] == ["loss"]


def test_wrong_use_is_refused(acorn: Acorn, run: Path, tmp_path: Path) -> None:
    refused = {
        ("--format", "hf"): (2, "No folder to write to is named", "--out DIR"),
        ("--format", "gguf", "--push", "a/b"): (2, "Only a Hugging Face folder", "--format hf"),
        ("--format", "hf", "--push", "b"): (2, "'b' is not the name of a repository", "OWNER/NAME"),
        ("--format", "onnx", "--out", tmp_path / "out"): (2, "Unknown format 'onnx'", "hf, gguf"),
        ("--format", "hf", "--dtype", "q8_0", "--out", tmp_path / "out"): (
            2,
            "has no data type 'q8_0'",
            "--format gguf",
        ),
        ("--format", "hf", "--out", run): (2, f"{run} already exists", "--force"),
        ("--format", "hf", "--out", run, "--force"): (
            2,
            "is not an export that --force could replace",
            "another folder",
        ),
    }
    for options, (code, what, fix) in refused.items():
        done = acorn("export", run, *options)
        assert done.returncode == code, done.stderr
        assert what in done.stderr
        assert fix in done.stderr
        assert done.stdout == ""
    assert acorn("export", tmp_path / "nowhere", "--format", "hf", "--out", tmp_path / "out").returncode == 2
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(acorn: Acorn, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    done = acorn("export", run, "--format", "gguf", "--out", tmp_path / "out")
    assert done.returncode == 7
    assert "pip install -c constraints.txt '.[gguf]'" in done.stderr
    assert not list(tmp_path.iterdir())
