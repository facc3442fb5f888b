from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from acorn.config import Config
from acorn.config_files import to_toml
from acorn.text.walk import CACHE, MODEL, OUT, PACKAGES, RUN, SHARDS, SWEEP, Walk

Write = Callable[[str, bytes | str], Path]

KINDS = {
    RUN: {"config.toml": to_toml(Config()), "samples.jsonl": "{}"},
    f"{RUN} ": {"environment.json": "{}", "metrics.jsonl": "{}"},
    MODEL: {"config.json": '{"model_type": "gpt2"}', "README.md": "a card", "merges.txt": "a b"},
    f"{MODEL} ": {"tokenizer_config.json": "{}", "vocab.txt": "a"},
    f"{MODEL}  ": {"adapter_config.json": "{}", "README.md": "a card"},
    SHARDS: {"manifest.json": "{}", "tokenizer.json": "{}", "train-00000.bin": "", "notes.txt": "a"},
    SWEEP: {"sweep.json": '{"format": "acorn-sweep"}', "report.html": "<p>", "logs/a.txt": "a"},
    PACKAGES: {"pyvenv.cfg": "", "lib/LICENSE.txt": "a"},
    CACHE: {"CACHEDIR.TAG": "", "a.txt": "a"},
}
TEXT = {
    "settings": {"config.toml": "[data]\nsource = 'a'\n", "a.txt": "a"},
    "records": {"config.json": '{"name": "mine"}', "manifest.json": "{}", "tokenizer.json": "{}", "a.txt": "a"},
    "sweeps": {"sweep.json": '{"format": "mine"}', "a.txt": "a"},
    "metrics": {"metrics.jsonl": "{}", "a.txt": "a"},
}


def found(walk: Walk, folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in walk.files(folder)}


@pytest.mark.parametrize("kind", KINDS)
def test_folders_that_are_not_the_users_text_are_skipped_and_listed(write: Write, tmp_path: Path, kind: str) -> None:
    for name, content in KINDS[kind].items():
        write(f"corpus/deep/it/{name}", content)
    write("corpus/a.txt", "mine")
    walk = Walk()
    assert found(walk, tmp_path / "corpus") == {"a.txt"}
    assert walk.skipped == [(tmp_path / "corpus" / "deep" / "it", kind.strip())]
    assert walk.summary() == f"1 {kind.strip()} ({tmp_path / 'corpus' / 'deep' / 'it'})"
    assert set(Walk().matches(tmp_path / "corpus" / "**" / "*")) == {tmp_path / "corpus" / "a.txt"}


@pytest.mark.parametrize("name", TEXT)
def test_a_similar_folder_is_text(write: Write, tmp_path: Path, name: str) -> None:
    for file, content in TEXT[name].items():
        write(f"corpus/it/{file}", content)
    walk = Walk()
    assert found(walk, tmp_path / "corpus") == {f"it/{file}" for file in TEXT[name]}
    assert walk.summary() == ""


def test_caches_are_recognized_by_their_names(write: Write, tmp_path: Path) -> None:
    for name in (
        "__pycache__/a.txt",
        "node_modules/a/README.md",
        "models--a--b/snapshots/1/README.md",
        "datasets--a/b.txt",
    ):
        write(name, "a")
    walk = Walk()
    assert found(walk, tmp_path) == {"datasets--a/b.txt"}  # it has only the name of a Hub cache
    assert sorted(kind for _, kind in walk.skipped) == [CACHE, CACHE, PACKAGES]


def test_the_folder_of_the_run_is_skipped_whatever_its_content(write: Write, tmp_path: Path) -> None:
    write("a.txt", "mine")
    write("runs/new/half.txt", "not mine")
    (tmp_path / "link").symlink_to("runs/new")
    walk = Walk(tmp_path / "runs" / ".." / "runs" / "new")
    assert found(walk, tmp_path) == {"a.txt"}
    assert {kind for _, kind in walk.skipped} == {OUT}
    assert found(Walk(tmp_path / "runs" / "other"), tmp_path / "runs") == {"new/half.txt"}


def test_folders_of_one_kind_are_listed_together(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        write(f"runs/{number}/config.toml", to_toml(Config()))
    write("cache/CACHEDIR.TAG", "")
    walk = Walk()
    assert found(walk, Path()) == set()
    assert walk.summary().startswith("1 cache (cache), 12 run folders (runs/0, runs/1, runs/10, runs/11, ")
    assert walk.summary().endswith("runs/6, runs/7 and 2 more)")
