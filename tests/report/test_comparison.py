from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

from acorn.report.comparison import comparison_section, curve_caveats, run_names
from acorn.report.run_facts import read_run

MakeRun = Callable[..., Path]


def rows(*runs: Path) -> dict[str, list[str]]:
    """Rows of all tables of the section, by their label with its note; cells without markup."""
    section = comparison_section([read_run(run) for run in runs], run_names(runs))
    found = {}
    for row in re.findall("<tr>(.*?)</tr>", section):
        cells = [unescape(re.sub("<[^>]*>", " ", cell)).strip() for cell in re.findall("<t[hd].*?>(.*?)</t[hd]>", row)]
        found[" ".join(cells[0].split())] = cells[1:]
    return found


def edit_manifest(run: Path, old: str, new: str) -> None:
    manifest = run / "data" / "manifest.json"
    assert old in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(old, new))


def test_comparable_figures_have_no_notes(make_run: MakeRun) -> None:
    found = rows(make_run("one"), make_run("two", overrides=("optimizer.name=muon",)))
    assert found["Validation bits per byte"] == ["1.5000", "1.5000"]
    assert found["Test word perplexity"] == ["321.5", "321.5"]
    assert found["optimizer. name"] == ["adamw", "muon"]
    assert not any("not comparable" in label or "differs" in label for label in found)


def test_a_different_validation_text_is_noted_beside_its_figures_only(make_run: MakeRun) -> None:
    one, two = make_run("one"), make_run("two")
    counts = json.loads((two / "data" / "manifest.json").read_text())
    counts["splits"]["valid"] |= {"bytes": 99, "documents": 3}
    (two / "data" / "manifest.json").write_text(json.dumps(counts))
    found = rows(one, two)
    assert "Validation bits per byte not comparable: different text" in found
    assert "Validation word perplexity not comparable: different text" in found
    assert "Test bits per byte" in found
    assert found["Text differs"] == ["12 documents, 4,500 bytes", "3 documents, 99 bytes"]
    assert not any("tokenizer" in label for label in found if label.startswith("Validation"))


def test_figures_of_altered_text_have_a_note(make_run: MakeRun) -> None:
    """Beside the name if it applies to all runs, else beside the figure."""
    one, two = make_run("one"), make_run("two")
    edit_manifest(two, '"counts"', '"clean": "wikitext", "counts"')
    found = rows(one, two)
    beside = " cleaned text, not comparable with published figures"
    label = "Validation bits per byte not comparable: different cleaning"
    assert found[label] == ["1.5000", "1.5000" + beside]
    edit_manifest(one, '"counts"', '"clean": "wikitext", "counts"')
    assert rows(one, two)["Validation bits per byte" + beside] == ["1.5000", "1.5000"]


def test_a_different_tokenizer_is_noted_beside_losses_but_not_bits_per_byte(make_run: MakeRun) -> None:
    one, two = make_run("one"), make_run("two")
    edit_manifest(two, "abab", "cdcd")
    found = rows(one, two)
    assert "Validation bits per byte" in found
    assert "Validation loss (nats per token) not comparable: different tokenizer" in found
    runs = [read_run(run) for run in (one, two)]
    assert curve_caveats(runs, ["one", "two"]) == [
        "Validation losses are not comparable between these runs (different tokenizer); bits per byte are.",
        "Training losses are not comparable between these runs: different tokenizer.",
    ]


def test_equivalent_settings_are_no_difference(make_run: MakeRun) -> None:
    """The defaults: one head of width 64; the modern architecture is tied; Muon's learning rate is 0.02."""
    one = make_run("one", overrides=("model.n_head=0", "optimizer.name=muon", "train.seed=1"))
    spelled = ("model.n_head=1", "model.tied=true", "optimizer.name=muon", "optimizer.lr=0.02", "train.seed=2")
    found = rows(one, make_run("two", overrides=spelled))
    assert [label for label in found if "." in label] == ["train. seed"]
    section = comparison_section([read_run(one), read_run(one.parent / "two")], ["one", "two"])
    assert "Mean and spread over 2 seeds" in section
    real = rows(one, make_run("three", overrides=("model.n_head=2", "optimizer.name=muon", "train.seed=1")))
    assert real["model. n_ head"] == ["1", "2"]


def test_settings_that_acorn_may_have_chosen_have_their_own_table(make_run: MakeRun) -> None:
    runs = [make_run("one", overrides=("train.threads=2",)), make_run("two", overrides=("train.threads=4",))]
    section = comparison_section([read_run(run) for run in runs], run_names(runs))
    asked, of_the_machine = section.split("Settings that differ and that acorn may have chosen for the machine")
    assert "None." in asked
    assert "threads" in of_the_machine


def test_scored_parts_of_different_texts_are_not_mentioned(make_run: MakeRun) -> None:
    """For the same text, how much of it each run scored is mentioned."""
    one, two = make_run("one", overrides=("train.eval_tokens=500",)), make_run("two")
    facts = [read_run(run) for run in (one, two)]
    assert curve_caveats(facts, ["one", "two"])[:2] == [
        "Validation losses and bits per byte are not comparable between these runs: different scored part.",
        "Tokens scored by each validation (train.eval_tokens): one: the first 500 of 999 tokens; two: all.",
    ]
    edit_manifest(two, '"documents": 12', '"documents": 13')
    said = " ".join(curve_caveats([read_run(run) for run in (one, two)], ["one", "two"]))
    assert "between these runs: different text." in said
    assert "part" not in said


def test_the_spread_over_seeds_has_a_table(make_run: MakeRun) -> None:
    runs = [make_run(f"run-{seed}", overrides=("name=x", f"train.seed={seed}")) for seed in range(3)]
    section = comparison_section([read_run(run) for run in runs], run_names(runs))
    assert "Mean and spread over 3 seeds" in section
    assert "run-0 (0), run-1 (1), run-2 (2)" in section
    assert "standard deviation" in section


def test_names_are_as_short_as_possible_but_unique(tmp_path: Path) -> None:
    a, b, c = tmp_path / "exp1" / "run", tmp_path / "exp2" / "run", tmp_path / "exp2" / "other"
    assert run_names([a]) == ["run"]
    assert run_names([a, c]) == ["run", "other"]
    assert run_names([a, b]) == ["exp1/run", "exp2/run"]
