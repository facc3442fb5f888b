"""The page of a sweep is valid HTML that lists every run with a link to its report."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from acorn.report.sweep_dots import dots_figure
from acorn.report.sweep_figures import SweepRun, setting_groups
from acorn.report.sweep_page import write_sweep_report

VOID = {"meta", "br", "input", "wbr"}


class Page(HTMLParser):
    """Unbalanced tags fail."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.drawn: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a" and found.get("href"):
            self.links.append(found["href"] or "")
        if found.get("data-name"):
            self.drawn.append(found["data-name"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_page_with_finished_and_failed_runs(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = []
    for lr in (0.1, 0.2):
        for seed in (0, 1):
            name = f"lr={lr},seed={seed}"
            figures = {
                "bits_per_byte": 1 + lr + 0.01 * seed,
                "loss_per_token": 2.5,
                "bytes": 9,
                "words": 2,
                "documents": 1,
            }
            settings = {"optimizer.lr": lr, "train.seed": seed}
            runs.append(SweepRun(name, make_run(name), settings, "done", step=60, evaluation={"valid": figures}))
    bad = {"optimizer.lr": 9.0, "train.seed": 0}
    runs.append(SweepRun("lr=9.0,seed=0", tmp_path / "runs" / "none", bad, "diverged", 5, "It <b>diverged</b>."))
    page = Page(write_sweep_report(tmp_path / "runs" / "report.html", runs).read_text("utf-8"))
    assert "4 of 5 runs done." in page.words
    assert "1.1050 ± 0.0071" in page.words
    assert "Lowest mean" in page.words or "Best: lr 0.1" in page.words
    assert "diverged (5)" in page.words
    assert "It <b>diverged</b>." in page.words
    assert "left out: 1 diverged" in page.words
    assert "Fewer than three seeds" in page.words
    assert "lr%3D0.1%2Cseed%3D0/report.html" in page.links
    assert sum(link.endswith("report.html") for link in page.links) == 4
    assert set(page.drawn) == {run.name for run in runs[:4]}


def test_cleaned_text_is_noted_in_the_heads_of_its_figures(make_run: Callable[..., Path], tmp_path: Path) -> None:
    figures = {"valid": {"bits_per_byte": 1.5, "loss_per_token": 2.5}}
    done = SweepRun("a", make_run("a"), {"train.seed": 0}, "done", evaluation=figures, clean="wikitext")
    page = write_sweep_report(tmp_path / "runs" / "report.html", [done]).read_text("utf-8")
    note = '<span class="note">cleaned text, not comparable with published figures</span>'
    for head in ("bits per byte", "loss"):
        assert page.count(f"<th>{head}{note}</th>") == 2  # in the tables of settings and of runs


def test_the_bar_of_a_deviation_is_not_cut() -> None:
    """Two values a and b have a standard deviation of 0.71 |a - b|, so the bar is longer than their distance."""
    runs = [
        SweepRun(str(n), Path("x"), {"train.seed": n}, "done", evaluation={"valid": {"bits_per_byte": bits}})
        for n, bits in enumerate((1.0, 2.0))
    ]
    wide = dots_figure(setting_groups(runs)).split("</svg>")[0]
    low, high = (float(x) for x in re.search(r'points="([0-9.]+),[0-9.]+ ([0-9.]+),', wide).groups())
    dots = [float(x) for x in re.findall(r'cx="([0-9.]+)"', wide)]
    assert (high - low) / (max(dots) - min(dots)) == pytest.approx(2**0.5, abs=0.01)


def test_a_page_of_runs_that_have_not_started(tmp_path: Path) -> None:
    run = SweepRun("seed=0", tmp_path / "seed=0", {"train.seed": 0}, "unfinished")
    page = Page(write_sweep_report(tmp_path / "report.html", [run]).read_text("utf-8"))
    assert "No run is done yet" in page.words
    assert "nothing to draw" in page.words


def test_varied_and_common_settings_are_listed(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """Neither defaults nor settings that differ between runs are in the list of common settings."""
    runs = []
    for lr in (0.1, 0.2):
        folder = make_run(f"lr={lr}", overrides=(f"optimizer.lr={lr}",))
        given = {"name": f"lr={lr}", "data.source": ("my.txt",), "optimizer.lr": lr, "optimizer.beta1": lr}
        given |= {"train.steps": 60, "train.batch_size": 16, "model.n_layer": 9}  # 16 is the default
        figures = {"valid": {"bits_per_byte": 1 + lr}}
        done = SweepRun(folder.name, folder, {"optimizer.lr": lr}, "done", 0, "", 60, figures, "", "preset tiny", given)
        runs.append(done)
    text = write_sweep_report(tmp_path / "runs" / "report.html", runs).read_text("utf-8")
    words = " ".join(Page(text.split('<section id="setup">')[1].split("</section>")[0]).words.split())
    assert "preset tiny" in words
    assert "optimizer.lr: 0.1, 0.2" in words
    assert "my.txt, 9,000 training tokens, 1,000 validation tokens" in words
    assert "60 steps, 15.4K tokens seen" in words
    assert "model.n_layer9" in words
    assert "batch_size" not in words
    assert "beta1" not in words


def test_there_is_a_picture_for_phones_and_keys_are_not_cut(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [
        SweepRun(f"x={n}", make_run(f"x={n}"), {"train.seed": n}, "done", evaluation={"valid": {"bits_per_byte": n}})
        for n in (1, 2)
    ]
    text = write_sweep_report(tmp_path / "runs" / "report.html", runs).read_text("utf-8")
    assert [int(width) for width in re.findall(r'class="dots" viewBox="0 0 (\d+) ', text)] == [960, 400]
    assert "min-width: 40rem" not in text
    assert "th code { overflow-wrap: normal; }" in text


def test_runs_without_a_figure_or_changed_when_resumed_have_notes(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    figures = {"valid": {"bits_per_byte": 2.0}}
    runs = [
        SweepRun("a", make_run("a"), {"train.seed": 0}, "done", evaluation=figures),
        SweepRun("b", make_run("b"), {"train.seed": 1}, "done"),
        SweepRun("c", make_run("c"), {"train.seed": 2}, "done", evaluation=figures, undisturbed=False),
    ]
    page = Page(write_sweep_report(tmp_path / "runs" / "report.html", runs).read_text("utf-8"))
    assert "left out: 1 not finite, 1 changed when resumed" in page.words
    assert "bno bits per byte: the loss of the final model is not a finite number" in page.words
    assert "cchanged when resumed" in page.words
