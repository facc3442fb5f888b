"""Mean, spread and the best setting, compared with values calculated by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from acorn.report.sweep_figures import (
    SweepRun,
    altered_in,
    caveats,
    group_rows,
    margin_of,
    setting_groups,
    spread,
    verdict_of,
)


def run(lr: float, seed: int, bits: float | None, status: Any = "done", **more: Any) -> SweepRun:
    figures = {"bits_per_byte": bits, "loss_per_token": 2.0, "documents": 5, "bytes": 100, "words": 20, "context": 32}
    evaluation = {} if bits is None else {"valid": figures | more}
    return SweepRun(
        f"lr={lr},seed={seed}", Path("x"), {"optimizer.lr": lr, "train.seed": seed}, status, None, "", 5, evaluation
    )


def grid(**values: list[float]) -> list[SweepRun]:
    return [run(float(lr[1:]), seed, bits) for lr, found in values.items() for seed, bits in enumerate(found)]


def test_mean_and_spread_over_seeds() -> None:
    one, two = setting_groups(grid(_1=[2.0, 3.0, 4.0], _2=[5.0]))
    assert (one.settings, one.mean, one.deviation) == ({"optimizer.lr": 1.0}, 3.0, 1.0)
    assert (two.mean, two.deviation) == (5.0, None)
    assert (spread(one), spread(two)) == ("3.0000 ± 1.0000", "5.0000")


def test_the_margin_follows_welchs_t_test() -> None:
    """Two samples of four with deviations 1 and 2: standard error sqrt(5/4), 4.41 degrees of freedom, t = 2.776."""
    scale = 1 / math.sqrt(20 / 3)  # of (-3, -1, 1, 3), with squares that add up to 20
    one = [n * scale for n in (-3, -1, 1, 3)]
    two = [2 * n * scale for n in (-3, -1, 1, 3)]
    groups = setting_groups(grid(_1=one, _2=two))
    assert groups[0].deviation == pytest.approx(1.0)
    assert groups[1].deviation == pytest.approx(2.0)
    assert margin_of(*groups) == pytest.approx(2.776 * math.sqrt(5 / 4))


def test_a_difference_beyond_the_margin_names_the_best() -> None:
    verdict = verdict_of(setting_groups(grid(_1=[1.50, 1.51, 1.52], _2=[1.80, 1.81, 1.82], _3=[2.0, 2.0, 2.1])))
    assert verdict.best is not None
    assert verdict.next is not None
    assert (verdict.best.label, verdict.next.label, verdict.is_clear) == ("lr 1.0", "lr 2.0", True)
    assert verdict.difference == pytest.approx(0.30)
    assert verdict.sentence.startswith("Best: lr 1.0, 1.5100 ± 0.0100 bits per byte")


def test_a_difference_within_the_spread_is_reported_as_unclear() -> None:
    verdict = verdict_of(setting_groups(grid(_1=[1.50, 1.53, 1.56], _2=[1.51, 1.54, 1.57])))
    assert verdict.is_clear is False
    assert "within the spread over seeds, so these runs do not tell which" in verdict.sentence
    few = verdict_of(setting_groups(grid(_1=[1.50, 1.51], _2=[1.52, 1.53])))
    assert few.is_clear is False
    assert "of too few seeds" in few.sentence


def test_one_run_per_setting_gives_no_spread() -> None:
    verdict = verdict_of(setting_groups(grid(_1=[1.5], _2=[1.6])))
    assert (verdict.margin, verdict.is_clear) == (None, None)
    assert "run several seeds" in verdict.sentence


def test_settings_with_unfinished_runs_are_not_ranked() -> None:
    runs = [*grid(_1=[1.5, 1.6], _2=[1.4]), run(2.0, 1, None, "diverged")]
    groups = setting_groups(runs)
    verdict = verdict_of(groups)
    assert verdict.best is groups[0]
    assert "Not ranked, because not all of its runs have a figure: lr 2.0" in verdict.sentence
    head, rows = group_rows(groups)
    assert head[-1] == "left out"
    assert [row[1] for row in rows] == ["1/2", "2/2"]
    assert rows[0][-1] == "1 diverged"
    assert verdict_of(setting_groups([run(1.0, 0, None, "failed")])).best is None


def test_figures_of_different_texts_are_not_compared() -> None:
    verdict = verdict_of(setting_groups([run(1.0, 0, 1.5), run(2.0, 0, 1.4, bytes=200)]))
    assert verdict.best is None
    assert "different texts" in verdict.sentence
    one, other = run(1.0, 0, 1.5), run(2.0, 0, 1.4)
    groups = setting_groups([dataclasses.replace(one, text="ab"), dataclasses.replace(other, text="cd")])
    assert verdict_of(groups).best is None
    assert verdict_of(setting_groups([dataclasses.replace(one, text="ab"), other])).best is not None


def test_a_difference_in_context_is_noted() -> None:
    assert caveats(setting_groups(grid(_1=[1.5, 1.5, 1.5], _2=[1.4, 1.4, 1.4]))) == []
    assert "own context" in caveats(setting_groups([run(1.0, 0, 1.5), run(2.0, 0, 1.4, context=64)]))[0]


def test_fewer_than_three_seeds_are_reported_as_too_few() -> None:
    assert caveats(setting_groups(grid(_1=[1.5, 1.6], _2=[1.4, 1.5])))[0].startswith("Fewer than three seeds were run")
    of_one = caveats(setting_groups(grid(_1=[1.5, 1.6, 1.7], _2=[1.4, 1.5])))
    assert of_one[0].startswith("Fewer than three seeds of lr 2.0 were run: too few for a spread.")
    assert caveats(setting_groups([run(1.0, 0, None, "failed")])) == []


def test_keys_with_the_same_last_part_are_shown_whole() -> None:
    settings = {"optimizer.name": "muon", "schedule.name": "linear", "train.seed": 0}
    (group,) = setting_groups([SweepRun("x", Path("x"), settings, "unfinished")])
    assert group.label == "optimizer.name muon, schedule.name linear"
    assert group_rows([group])[0][:2] == ["optimizer.name", "schedule.name"]


def test_runs_without_bits_per_byte_are_named_with_the_reason() -> None:
    """Runs on text outside the vocabulary are done, but have no figure."""
    reason = "not given: 72 % of the tokens are unknown"
    done = run(1.0, 0, 1.5)
    without = dataclasses.replace(
        run(2.0, 0, 1.5), evaluation={"valid": {"bits_per_byte": None, "bits_per_byte_note": reason}}
    )
    assert verdict_of(setting_groups([without])).sentence == f"There are no bits per byte to compare: {reason}."
    groups = setting_groups([done, without])
    assert verdict_of(groups).best is groups[0]
    assert f"Bits per byte of lr 2.0: {reason}." in caveats(groups)


def test_a_model_without_a_finite_figure_is_named_in_table_verdict_and_notes() -> None:
    """The run is done, but its evaluation lacks the split that could not be scored."""
    without = dataclasses.replace(run(2.0, 0, None), name="bad")
    groups = setting_groups([run(1.0, 0, 1.5), without])
    assert group_rows(groups)[1][1][-1] == "1 not finite"
    assert "Not ranked, because none of its runs counts: lr 2.0 (1 not finite)." in verdict_of(groups).sentence
    assert "Bits per byte of lr 2.0: the loss of the final model is not a finite number." in caveats(groups)
    partly = setting_groups([run(1.0, 0, 1.5), run(2.0, 1, 1.4), without])
    assert "not all of its runs have a figure: lr 2.0" in verdict_of(partly).sentence


def test_runs_that_were_changed_when_resumed_are_left_out_and_named() -> None:
    extended = dataclasses.replace(run(1.0, 2, 9.0), name="extended", undisturbed=False)
    groups = setting_groups([*grid(_1=[1.5, 1.6], _2=[1.8, 1.9]), extended])
    assert groups[0].values == (1.5, 1.6)
    assert group_rows(groups)[1][0][-1] == "1 changed when resumed"
    assert verdict_of(groups).best is groups[0]
    assert any("extended" in said and "left out of mean, spread and verdict" in said for said in caveats(groups))
    (alone,) = setting_groups([extended])  # if all are, there are no others to compare with
    assert alone.values == (9.0,)
    assert any("extended" in said for said in caveats([alone]))


def test_only_figures_of_altered_text_have_a_note() -> None:
    plain, lossy = run(1.0, 0, 1.5), run(1.0, 1, 1.5, lossless=False)
    told = "not comparable with published figures"
    assert altered_in(setting_groups([plain])) == ""
    assert altered_in(setting_groups([plain, dataclasses.replace(plain, clean="wikitext")])) == f"cleaned text, {told}"
    assert altered_in(setting_groups([lossy])) == f"normalized text, {told}"
