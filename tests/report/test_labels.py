"""No field of a run's files is shown to a reader by its raw name."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from acorn.data.token_shards import SplitCount
from acorn.evaluate.validation import Evaluation
from acorn.figure_names import FIGURES
from acorn.origin import STARTS_FROM
from acorn.report.data_section import HIDDEN, data_section
from acorn.report.environment_section import environment_section
from acorn.report.labels import DATA, ENVIRONMENT, TOKENIZER
from acorn.report.sections import evaluation_section
from acorn.run.environment import describe_environment, with_the_start
from acorn.runtime.device import Runtime
from acorn.text.reading import SplitCounts

RAW_NAME = r"\b[a-z]+_[a-z_]+\b"


def words_of(section: str) -> str:
    """The text of a section without names in code, which are settings."""
    return re.sub("<[^>]*>", " ", re.sub("<code>.*?</code>", "", section))


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Every field that a run writes into environment.json."""
    monkeypatch.chdir(tmp_path)
    now = with_the_start(describe_environment(Runtime("cpu", "fp32", False, 1, True), "acorn pretrain small"), {})
    written = {"windows_per_rank": {"0": 9789}, "peak": {"flops_per_second": 2.84e11, "of": "matmuls"}}
    return now | written | {STARTS_FROM: "the run mine"}


def test_every_field_of_the_environment_has_a_label(environment: dict[str, Any]) -> None:
    assert set(environment) == set(ENVIRONMENT)
    assert not re.search(RAW_NAME, words_of(environment_section(environment | {"git_revision": "1a+"})))


def test_every_count_of_a_manifest_has_a_label() -> None:
    counts = {field.name for kind in (SplitCount, SplitCounts) for field in dataclasses.fields(kind)}
    report = {"round_trip_rate", "bytes_per_token", "unknown_rate"}  # data/prepare.py: _measure, prepare
    assert counts | report | {"text_sha256", "also_in_training_rate"} == set(DATA) | HIDDEN
    tokenizer = {"fingerprint": "f" * 64, "kind": "bpe", "separator_id": 0, "vocab_size": 512}
    assert set(tokenizer) == set(TOKENIZER)
    shards = {
        "splits": {"train": dict.fromkeys((*counts, "text_sha256"), 3)},
        "tokenizer_report": {"train": dict.fromkeys(report, 0.5)},
        "text": {"overlap": {"train": 0.1}},
        "tokenizer": tokenizer,
    }
    assert not re.search(RAW_NAME, words_of(data_section(shards)))


def test_every_figure_of_an_evaluation_has_a_name() -> None:
    names = {field.name for field in dataclasses.fields(Evaluation)}
    assert {name for name in names if not name.endswith("_note")} - {"split"} == set(FIGURES)
    section = evaluation_section({"valid": dict.fromkeys(names, 1)})
    assert not re.search(RAW_NAME, words_of(section))
    for name in FIGURES.values():
        assert f"<th>{name}</th>" in section
