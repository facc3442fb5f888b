from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from acorn.errors import UsageError
from acorn.report.html import write_report
from acorn.report.metrics_log import JsonLines

MakeRun = Callable[..., Path]
VOID = {"meta", "br", "input", "wbr"}


class Page(HTMLParser):
    """A parsed page: its text, and every tag with its attributes. Unbalanced tags fail."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.script = ""
        self.feed(path.read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.script += data
        elif self.open[-1:] != ["style"]:
            self.words += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]

    def drawn_names(self) -> list[str]:
        return list(dict.fromkeys(self.attributes("data-name")))


def test_a_report_contains_every_part_of_a_run(make_run: MakeRun) -> None:
    run = make_run()
    assert write_report(run) == run / "report.html"
    page = Page(run / "report.html")
    for wanted in ("1.5000", "1.2500", "2.5000", "321.5", "15.4K", "30\xa0s", "25 % of peak (MFU)"):
        assert wanted in page.words, wanted
    assert "One end-of-line a line counts as a word." in page.words
    assert "Dropped as duplicates" in page.words
    assert "1.25 %" in page.words  # overlap of validation and training text
    assert "3.11.7" in page.words
    assert "Transformer blocks." in page.words
    assert page.drawn_names() == [
        "training",
        "validation",
        "mine",
        "Learning rate",
        "Gradient norm, before clipping",
        "Tokens per second",
    ]
    charts = [attributes["viewbox"] or "" for tag, attributes in page.tags if attributes.get("class") == "chart"]
    assert len(charts) == (5 + 1) * 3  # the large chart has a second picture for phones; each has three axes
    assert sum(int(box.split()[2]) > 400 for box in charts) == 3  # the others are readable on 390 pixels
    assert "not in reach" not in page.words


def test_a_report_needs_no_other_files(make_run: MakeRun) -> None:
    page = Page(write_report(make_run()))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"link", "img", "iframe", "object", "base"}
    assert page.attributes("src") == []
    assert all(target.startswith("#") for target in page.attributes("href"))
    assert "@import" not in page.words
    (policy,) = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_text_from_the_run_is_escaped(make_run: MakeRun) -> None:
    attack = "</p></style><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' &amp; \x00\x1b\u202e\ud800"
    run = make_run(overrides=('name="<i>name<u>"', 'train.sample_prompts=["<u>"]'))
    samples = JsonLines(run / "samples.jsonl")
    samples.write({"step": 60, "prompt": "</p>", "text": attack})
    samples.write({"step": 60, "prompt": "", "text": "مرحبا"})
    samples.close()
    page = Page(write_report(run))
    assert attack.removesuffix("\x00\x1b\u202e\ud800") + r"\x00\x1b\u202e\ud800" in page.words
    assert "مرحبا" in page.words
    assert "The cat <b>sat</b> & 'purred' \\x1b[2J" in page.words
    assert "<i>name<u>" in page.words
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not {"img", "u"} & {tag for tag, _ in page.tags}
    assert page.attributes("onload") == page.attributes("onerror") == []


def test_the_prompt_of_a_sample_is_marked(make_run: MakeRun) -> None:
    report = write_report(make_run()).read_text("utf-8")
    assert "<mark>The</mark> cat &lt;b&gt;" in report


def test_equal_runs_give_equal_bytes(make_run: MakeRun) -> None:
    run = make_run()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        ({"steps": 0, "complete": False}, ["Training has not logged a step yet.", "No loss has been logged"]),
        (
            {"complete": False},
            ["is at step 60", "has no final model yet", "No samples were generated", "has not been evaluated"],
        ),
        ({"valid_every": 0, "complete": False}, ["was not validated during training"]),
        ({"complete": False}, ["counts are left out", "no environment.json"]),
    ],
)
def test_missing_parts_are_named_in_a_sentence(
    make_run: MakeRun, settings: dict[str, object], sentences: list[str]
) -> None:
    words = Page(write_report(make_run(**settings))).words
    for sentence in sentences:
        assert sentence in words


def test_damaged_files_are_named_on_the_page(make_run: MakeRun) -> None:
    run = make_run()
    (run / "metrics.jsonl").write_bytes(b"\x00\x00\n")
    (run / "config.toml").write_bytes(b"\xff")
    words = Page(write_report(run)).words
    assert f"{run / 'metrics.jsonl'}, line 1" in words
    assert "config.toml cannot be read" in words


def test_unexpected_contents_do_not_stop_the_report(make_run: MakeRun) -> None:
    """Files of another version, or edited by hand, may have values where tables are expected."""
    run = make_run()
    (run / "data" / "manifest.json").write_text('{"splits": [1], "tokenizer": "x", "text": null}')
    (run / "evaluation.json").write_text('{"valid": {"loss_per_token": null, "tokens": "many"}, "test": 3}')
    (run / "config.toml").write_text('name = 3\n[model]\narchitecture = "newer"\n[novel]\nkey = {a = 1}\n')
    words = Page(write_report(run)).words
    assert "many" in words
    assert "novel" in words


def test_many_samples_are_collapsed_but_complete(make_run: MakeRun) -> None:
    run = make_run()
    samples = JsonLines(run / "samples.jsonl")
    for step in range(100, 2100, 100):
        samples.write({"step": step, "prompt": "", "text": f"sample of {step}."})
    samples.close()
    report = write_report(run).read_text("utf-8")
    open_part, folded = report.split("steps between</summary>", 1)
    assert all(report.count(f"sample of {step}.") == 1 for step in range(100, 2100, 100))
    assert open_part.count('class="sample"') == 6
    assert "sample of 2000." in open_part
    assert folded.count('class="sample"') == 22 - 6


def test_several_runs_share_charts_and_tables(make_run: MakeRun) -> None:
    run = make_run("one")
    other = make_run("two", steps=30, overrides=("optimizer.name=muon",))
    page = Page(write_report(run, [other]))
    assert {"one, training", "one, validation", "two, training", "two, validation"} <= set(page.drawn_names())
    assert "optimizer.name" in page.words
    assert "model.n_layer" not in page.words
    assert "not comparable" not in page.words
    assert not (other / "report.html").exists()


def test_runs_are_named_after_their_folders(make_run: MakeRun) -> None:
    run, other = make_run("one", overrides=("name=same",)), make_run("two", overrides=("name=same",))
    page = Page(write_report(run, [other]))
    assert {"one, training", "two, training"} <= set(page.drawn_names())
    assert "config same" in page.words
    assert "one · two" in page.words


def test_a_comparison_does_not_replace_the_report_of_a_run(make_run: MakeRun, tmp_path: Path) -> None:
    run, other = make_run("one"), make_run("two")
    own = write_report(run).read_bytes()
    assert write_report(run, [other]) == run / "comparison.html"
    assert write_report(run, [other], tmp_path / "new" / "mine.html") == tmp_path / "new" / "mine.html"
    assert (tmp_path / "new" / "mine.html").read_bytes() == (run / "comparison.html").read_bytes()
    assert (run / "report.html").read_bytes() == own
    assert write_report(run, out=tmp_path / "alone.html").read_bytes() == own


@pytest.mark.parametrize("name", ["metrics.jsonl", "folder.html", "page"])
def test_only_html_files_are_overwritten(make_run: MakeRun, name: str) -> None:
    run = make_run()
    (run / "folder.html").mkdir()
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match="is not one"):
        write_report(run, out=run / name)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_run_may_be_compared_with_itself(make_run: MakeRun) -> None:
    run = make_run()
    page = Page(write_report(run, [run / ".." / run.name]))
    assert "not comparable" not in page.words
    assert "mine · mine" in page.words


def test_the_headline_names_the_scored_part_of_validation(make_run: MakeRun) -> None:
    running = Page(write_report(make_run("running", overrides=("train.eval_tokens=500",), complete=False))).words
    assert "Validation so far" in running
    run = make_run("done", overrides=("train.eval_tokens=500",))
    words = Page(write_report(run)).words
    assert "Validation so far" not in words
    assert "Each validation while training scores the first 500 of 999 tokens" in words
    assert "The figures of the finished model are of all 999 tokens of the split." in words


def test_every_tile_names_the_scored_part(make_run: MakeRun) -> None:
    """A run with train.minutes may score part of each split; its evaluation has the number of tokens."""
    run = make_run()
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation["valid"]["tokens"], evaluation["test"]["tokens"] = 500, 250
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    labels = re.findall("<dt>(.*?)</dt>", write_report(run).read_text("utf-8"))
    assert labels[:4] == [
        "Validation, first 500 tokens",
        "Test, first 250 tokens",
        "Validation loss, first 500 tokens",
        "Test word perplexity, first 250 tokens",
    ]


def test_every_figure_of_cleaned_text_has_a_note(make_run: MakeRun) -> None:
    run = make_run()
    told = "cleaned text, not comparable with published figures"
    assert told not in write_report(run).read_text("utf-8")
    manifest = json.loads((run / "data" / "manifest.json").read_text())
    manifest["text"]["clean"] = "wikitext"
    (run / "data" / "manifest.json").write_text(json.dumps(manifest))
    report = write_report(run).read_text("utf-8")
    note = f'<span class="note">{told}</span>'
    tiles = re.findall("<div><dt>(.*?)</dt><dd>(.*?)</dd></div>", report)
    assert [note in value for _, value in tiles] == [True] * 4 + [False] * 4
    for name in ("Bits per byte", "Loss (nats per token)", "Word perplexity"):
        assert f"<th>{name}{note}</th>" in report


def test_a_risen_validation_loss_is_noted_below_the_curves(make_run: MakeRun) -> None:
    run, other = make_run("one"), make_run("two")
    metrics = JsonLines(run / "metrics.jsonl")
    metrics.write({"step": 61, "tokens": 15616, "split": "valid", "loss": 3.0})
    metrics.close()
    told = "Validation loss was lowest at step 60 (2.399) and is 3.000 now"  # 2.1 + 6 exp(-3)
    assert told in Page(write_report(run)).words
    assert f"one: {told}" in Page(write_report(run, [other])).words
    assert "was lowest at" not in Page(write_report(other)).words


def test_the_page_names_the_file_of_the_model_card(make_run: MakeRun) -> None:
    differs = Page(write_report(make_run("mine", overrides=("name=small",)))).words
    assert "named after the run's folder, mine. The model card in final/ is named after the config, small" in differs
    assert "model card" not in Page(write_report(make_run("same"))).words


def test_a_folder_that_is_not_a_run_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    for arguments in ((tmp_path, []), (run, [tmp_path])):
        with pytest.raises(UsageError):
            write_report(*arguments)
    assert not (run / "report.html").exists()
    assert not (tmp_path / "report.html").exists()


def test_every_color_class_of_the_charts_is_in_the_stylesheet(make_run: MakeRun) -> None:
    runs = [make_run(f"run-{number}", steps=25, complete=False) for number in range(7)]
    report = write_report(runs[0], runs[1:]).read_text("utf-8")
    used = set(re.findall(r'<polyline class="\w+ (c\d+)"', report))
    styled = set(re.findall(r"svg polyline\.(c\d+) ", report))
    assert used == styled == {f"c{number}" for number in range(6)}


@pytest.mark.parametrize("named", [True, False])
def test_a_page_that_acorn_did_not_write_is_not_replaced(make_run: MakeRun, tmp_path: Path, named: bool) -> None:
    run = make_run()
    page = tmp_path / "page.html" if named else run / "report.html"
    page.write_text("<p>my page</p>")
    with pytest.raises(UsageError, match="not a report of acorn"):
        write_report(run, out=page if named else None)
    assert page.read_text() == "<p>my page</p>"
    page.unlink()
    for _ in range(2):  # its own page is
        write_report(run, out=page if named else None)
    assert "my page" not in page.read_text("utf-8")
