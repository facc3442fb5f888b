"""Commands on a run with prepared shards, given in another folder than the run was started in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from acorn.report.run_facts import read_run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, acorn, run: Path, text_file: Path, settings) -> Path:
    """A folder with `shards`, and a run over them in `runs/mine`; beside it, elsewhere/ with shards of other text."""
    folder = tmp_path_factory.mktemp("home") / "project"
    folder.mkdir()
    (other := folder / "other.txt").write_text(text_file.read_text().replace("Sentence", "Statement"))
    prepare = ("data", "prepare", "--tokenizer", run / "tokenizer.json")
    for text, out in ((text_file, folder), (other, folder.parent / "elsewhere")):
        done = acorn(*prepare, "--input", text, "--out", out / "shards")
        assert done.returncode == 0, done.stderr
    done = acorn("pretrain", "small", *settings, "data.shards=shards", "--out", "runs/mine", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def moved(project: Path, tmp_path: Path) -> Path:
    """The whole project, moved to another folder."""
    return shutil.copytree(project.parent, tmp_path / "moved")


@pytest.mark.parametrize("way", ["from elsewhere", "moved"])
def test_every_command_finds_relative_shards(acorn, project: Path, moved: Path, way: str) -> None:
    """The current folder also has shards of that name; they are not read."""
    if way == "moved":
        shutil.rmtree(moved / "project" / "other.txt", ignore_errors=True)
        project.rename(project.parent / "away")
    try:
        here, out = moved / "elsewhere", moved / "project" / "runs" / "mine"
        expected = read_run(out).evaluation["valid"]["loss_per_token"]
        done = acorn("evaluate", out, "--json", cwd=here)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["loss_per_token"] == pytest.approx(expected, 1e-5)
        done = acorn("verify", out, cwd=here)
        assert done.returncode == 0, done.stderr
        assert not any(f" {here}" in line for line in done.stdout.splitlines())
        done = acorn("pretrain", "--resume", "--out", out, "train.steps=10", cwd=here)
        assert done.returncode == 0, done.stderr
        assert read_run(out).shards["splits"]["train"]["tokens"] > 0
    finally:
        if way == "moved":
            (project.parent / "away").rename(project)


def test_the_same_shards_may_be_named_from_another_folder(acorn, moved: Path, settings) -> None:
    here = moved / "elsewhere"
    arguments = ("pretrain", "small", *settings, "--out", moved / "project" / "runs" / "mine", "--resume")
    done = acorn(*arguments, "data.shards=../project/shards", cwd=here)
    assert "already complete" in done.stderr
    done = acorn(*arguments, "data.shards=shards", cwd=here)
    assert done.returncode == 2
    assert "data.shards: " in done.stderr


def test_replaced_shards_are_refused(acorn, project: Path, moved: Path) -> None:
    """Detected by the digest of their manifest, although their tokenizer is the same."""
    out = moved / "project" / "runs" / "mine"
    for place in (project / "shards", moved / "project" / "shards"):
        place.rename(place.with_name("right"))
        shutil.copytree(moved / "elsewhere" / "shards", place)
    try:
        for command in (("evaluate", out), ("pretrain", "--resume", "--out", out, "train.steps=10")):
            done = acorn(*command)
            assert done.returncode == 4, done.stderr
            assert "not those that the run was started with" in done.stderr
    finally:
        shutil.rmtree(project / "shards")
        (project / "right").rename(project / "shards")
