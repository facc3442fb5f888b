from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acorn.report.comparability import CONDITIONS_TO_MATCH, conditions_of, differing, scored_part
from acorn.report.run_facts import read_run

MakeRun = Callable[..., Path]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_manifest(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edit(run / "data" / "manifest.json", change)


def give_digests(run: Path, valid: str, fingerprint: str = "ab" * 32, clean: str = "none") -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["splits"]["valid"] |= {"text_sha256": valid * 64}
        manifest["tokenizer"]["fingerprint"] = fingerprint
        manifest["text"]["clean"] = clean

    edit_manifest(run, change)


def wrong(runs: list[Path], figure: str = "bits_per_byte", split: str = "valid", **how: bool) -> list[str]:
    return differing(conditions_of([read_run(run) for run in runs], split, **how), CONDITIONS_TO_MATCH[figure])


def test_equal_runs_have_equal_conditions(make_run: MakeRun) -> None:
    runs = [make_run("one"), make_run("two")]
    assert [wrong(runs, name) for name in CONDITIONS_TO_MATCH] == [[], [], []]
    assert wrong(runs, in_curve=True) == []


def test_equal_counts_do_not_mean_equal_text(make_run: MakeRun) -> None:
    """Different texts may have equally many documents, bytes and words; their digests differ."""
    runs = [make_run("one"), make_run("two")]
    for run, digest in zip(runs, "ab", strict=True):
        give_digests(run, digest)
    assert wrong(runs) == ["text"]
    assert wrong(runs, in_curve=True) == ["text"]
    assert wrong(runs, split="test") == []


def test_with_different_tokenizers_bits_per_byte_are_comparable_but_losses_are_not(make_run: MakeRun) -> None:
    runs = [make_run("one"), make_run("two")]
    give_digests(runs[0], "a")
    give_digests(runs[1], "a", fingerprint="cd" * 32)
    assert wrong(runs) == []
    assert wrong(runs, "loss_per_token") == ["tokenizer"]


def test_texts_of_earlier_versions_are_compared_by_shards_or_counts(make_run: MakeRun) -> None:
    runs = [make_run("one"), make_run("two")]
    for run, sha in zip(runs, "cd", strict=True):
        edit_manifest(run, lambda manifest, sha=sha: manifest["files"].update({"test-00000.bin": {"sha256": sha}}))
    assert wrong(runs) == ["text"]
    edit_manifest(runs[1], lambda manifest: manifest["tokenizer"].update(fingerprint="other"))
    assert wrong(runs) == []  # shards of two tokenizers are not compared; the counts are equal
    edit_manifest(runs[1], lambda manifest: manifest["splits"]["valid"].update(bytes=4501))
    assert wrong(runs) == ["text"]


def test_differently_cleaned_texts_are_compared_by_the_counts_of_the_originals(make_run: MakeRun) -> None:
    runs = [make_run("one"), make_run("two")]
    give_digests(runs[0], "a")
    give_digests(runs[1], "b", clean="wikitext")
    assert wrong(runs) == ["cleaning"]


@pytest.mark.parametrize("name", ["context", "stride"])
def test_context_and_stride_of_the_evaluation_are_compared(make_run: MakeRun, name: str) -> None:
    runs = [make_run("one"), make_run("two")]
    for run, tokens in zip(runs, (32, 16), strict=True):
        edit(
            run / "evaluation.json",
            lambda found, n=tokens: found["valid"].update({"context": 32, "stride": 32, name: n}),
        )
    assert wrong(runs) == [name]
    assert wrong(runs, in_curve=True) == []


def test_a_lossy_tokenizer_scores_normalized_text(make_run: MakeRun) -> None:
    runs = [make_run("one"), make_run("two")]
    edit(runs[1] / "evaluation.json", lambda found: found["valid"].update(lossless=False))
    assert wrong(runs) == ["normalization"]


def test_a_run_that_is_still_training_is_scored_on_part_of_the_text(make_run: MakeRun) -> None:
    done, running = make_run("one"), make_run("two", overrides=("train.eval_tokens=300",), complete=False)
    (running / "data").mkdir()
    (running / "data" / "manifest.json").write_bytes((done / "data" / "manifest.json").read_bytes())
    assert scored_part(read_run(done), "valid") == (999, 999)
    assert scored_part(read_run(running), "valid") == (300, 999)
    assert wrong([done, running]) == ["part"]
    assert wrong([done, running], in_curve=True) == ["part"]


def test_without_shards_the_counts_of_the_evaluation_are_compared(make_run: MakeRun) -> None:
    runs = [make_run("one"), make_run("two")]
    (runs[1] / "data" / "manifest.json").unlink()
    for run in runs:
        edit(run / "evaluation.json", lambda found: found["valid"].update(documents=9, bytes=900, words=90))
    assert wrong(runs) == []
    edit(runs[1] / "evaluation.json", lambda found: found["valid"].update(bytes=901))
    assert wrong(runs) == ["text"]


def test_unknown_conditions_count_as_equal(make_run: MakeRun) -> None:
    runs = [make_run("one"), make_run("two", complete=False)]
    assert wrong(runs) == []
    assert scored_part(read_run(runs[1]), "valid") is None
