"""Tokenizer and shards of a run: given ones, those of a checkpoint or an earlier start, or new ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from acorn.checkpoint.training_state import Checkpoint, Counters
from acorn.config import Config
from acorn.config_files import load_config, to_toml
from acorn.data.made_from import read_made_from
from acorn.data.token_shards import TokenShards
from acorn.errors import DamageError, UsageError
from acorn.progress import QUIET
from acorn.run import text as run_text
from acorn.run.text import fingerprint_of, text_to_shards
from acorn.run_folder import RunFolder
from acorn.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def config(tmp_path: Path) -> Config:
    source = tmp_path / "text.txt"
    source.write_text("\n".join(f"Oak {n} has {n * n} acorns." for n in range(200)))
    return load_config("small", [f"data.source={source}", "tokenizer.vocab_size=300", "train.steps=1"])


@pytest.fixture
def run(config: Config, tmp_path: Path) -> RunFolder:
    """A run that has its shards and ended before its first step."""
    run = RunFolder(tmp_path / "run")
    run.root.mkdir()
    text_to_shards(config, run, None, QUIET)
    return run


@pytest.fixture
def nothing_is_made(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if shards are made from here on."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("shards or a tokenizer were made")

    monkeypatch.setattr(run_text, "prepare", refuse)
    monkeypatch.setattr(run_text, "train_tokenizer", refuse)


def checkpoint_of(run: RunFolder, config: Config, data: str) -> Checkpoint:
    return Checkpoint(
        path=run.checkpoint(1),
        config=config,
        tokenizer_json=run.tokenizer.read_text(encoding="utf-8"),
        counters=Counters(step=1),
        resolved={"data": data},
        weights={},
        optimizer_state={},
    )


def content(shards: TokenShards) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.folder.iterdir()}


def test_new_shards_contain_the_text(run: RunFolder, config: Config) -> None:
    shards = TokenShards.open(run.data)
    tokenizer = Tokenizer.from_file(run.tokenizer)
    decoded = tokenizer.decode([int(token) for token in shards.tokens("train")[1:40]])
    assert len(decoded) > 39
    assert Path(config.data.source[0]).read_text().startswith(decoded)
    assert run.config.read_text(encoding="utf-8") == to_toml(config)


@pytest.mark.usefixtures("nothing_is_made")
def test_shards_of_an_earlier_start_are_used(run: RunFolder, config: Config) -> None:
    before = fingerprint_of(TokenShards.open(run.data))
    tokenizer_json = run.tokenizer.read_bytes()
    run.tokenizer.unlink()
    _, shards = text_to_shards(config, run, None, QUIET)
    assert (shards.folder, fingerprint_of(shards)) == (run.data, before)
    assert run.tokenizer.read_bytes() == tokenizer_json


@pytest.mark.usefixtures("nothing_is_made")
def test_given_shards_are_used_in_place(run: RunFolder, config: Config, tmp_path: Path) -> None:
    prepared = shutil.copytree(run.data, tmp_path / "prepared")
    given = load_config("small", [f"data.shards={prepared}", "train.steps=1"])
    other = RunFolder(tmp_path / "other")
    other.root.mkdir()
    tokenizer, shards = text_to_shards(given, other, None, QUIET)
    assert (shards.folder, other.data.exists()) == (prepared, False)
    assert other.tokenizer.read_text(encoding="utf-8") == tokenizer.to_json()
    made_from = read_made_from(other)
    assert made_from is not None
    assert made_from.shards is not None


def test_shards_of_a_checkpoint_are_used_and_made_again_if_missing(run: RunFolder, config: Config) -> None:
    shards = TokenShards.open(run.data)
    before, checkpoint = content(shards), checkpoint_of(run, config, fingerprint_of(shards))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_text, "prepare", None)
        assert content(text_to_shards(config, run, checkpoint, QUIET)[1]) == before
    shutil.rmtree(run.data)
    run.tokenizer.unlink()
    assert content(text_to_shards(config, run, checkpoint, QUIET)[1]) == before
    assert run.tokenizer.read_text(encoding="utf-8") == checkpoint.tokenizer_json


def test_changed_shards_and_tokenizers_are_refused_after_a_checkpoint(run: RunFolder, config: Config) -> None:
    with pytest.raises(DamageError, match="not those that the run was started with"):
        text_to_shards(config, run, checkpoint_of(run, config, "another digest"), QUIET)
    checkpoint = checkpoint_of(run, config, fingerprint_of(TokenShards.open(run.data)))
    run.tokenizer.write_text("{}")
    with pytest.raises(DamageError, match="not the tokenizer that the run was trained with"):
        text_to_shards(config, run, checkpoint, QUIET)
    (run.data / "manifest.json").unlink()
    with pytest.raises(DamageError, match=r"manifest\.json of the token shards is missing"):
        text_to_shards(config, run, checkpoint, QUIET)


def test_a_folder_with_the_users_own_files_is_never_replaced(config: Config, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "other")
    other.data.mkdir(parents=True)
    (other.data / "novel.txt").write_text("the user's own text")
    with pytest.raises(UsageError, match=r"such as novel\.txt"):
        text_to_shards(config, other, None, QUIET)
    assert (other.data / "novel.txt").read_text() == "the user's own text"
