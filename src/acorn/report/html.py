"""The report of a run: one HTML file that needs nothing outside it, for light, dark and paper."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from acorn.errors import UsageError
from acorn.figure_names import SPLITS, beside
from acorn.files import check_readable, write_file
from acorn.report.charts import COLOURS, axis_switch, bits_chart, loss_chart, measure_charts
from acorn.report.comparability import scored_part, scored_text
from acorn.report.comparison import comparison_section, curve_caveats, run_names
from acorn.report.curve_notes import curve_notes
from acorn.report.curves import RunCurves
from acorn.report.data_section import data_section
from acorn.report.environment_section import environment_section
from acorn.report.finetuned_section import examples_table, finetuned_section
from acorn.report.formats import duration, figure, frozen_parts, short, unbroken
from acorn.report.glossary import glossary_section
from acorn.report.markup import absent, escaped, noted
from acorn.report.run_facts import RunFacts, read_run
from acorn.report.sections import config_section, evaluation_section, samples_section
from acorn.report.task_figures import loss_unit, main_figures
from acorn.run_folder import RunFolder

TITLE_END = "· acorn</title>"
"""How the titles of acorn's pages end, by which they are recognized."""

UNITS = "Loss is in nats per token and depends on the tokenizer; bits per byte do not."
LABEL_TASKS = ("classify", "regress", "tag")
MAIN_TILES = 4
"""Figures of a task that the head of the page shows."""

BEGINNING_BYTES = 4096


class Headline(NamedTuple):
    """A figure a reader looks for first; `value` is empty where it is not known, `note` stands below it."""

    label: str
    value: str
    unit: str = ""
    note: str = ""


def write_report(run: Path, compare: Sequence[Path] = (), out: Path | None = None) -> Path:
    """Writes a report and returns its path.

    Args:
        run: the run folder.
        compare: other run folders, whose curves are laid over and whose figures and configs are set side by side.
        out: the file to write; None: RUN/report.html, and with `compare` RUN/comparison.html, so that a comparison
            never takes the place of the run's own report.

    Raises:
        UsageError: one of the folders is not a run folder; `out` is no .html file, or a page that acorn did not write.
        ResourceError: the file cannot be written.
    """
    if out is not None and (out.suffix.lower() not in (".html", ".htm") or out.is_dir()):
        raise UsageError(
            f"A report is an .html file, and {out} is not one.", where="--out", fix="name a file, such as report.html"
        )
    runs = [read_run(folder) for folder in (run, *compare)]
    path = out or (RunFolder(run).comparison if compare else RunFolder(run).report)
    _check_replaces_only_reports(path)
    write_file(path, _page(runs))
    return path


def _check_replaces_only_reports(path: Path) -> None:
    """Refuses to replace a page that acorn did not write.

    Raises:
        UsageError: `path` is such a page.
        InputError: reading it is not permitted, so that this cannot be seen.
    """
    check_readable(path)
    try:
        with open(path, "rb") as file:
            beginning = file.read(BEGINNING_BYTES).decode("utf-8", "replace")
    except OSError:  # there is none, or it cannot be read: then writing says why
        return
    if beginning and TITLE_END not in beginning:
        raise UsageError(
            f"{path} exists and is not a report of acorn; it is not replaced.",
            where=str(path.absolute()),
            fix="move it away, or name another file with --out",
        )


def _page(runs: Sequence[RunFacts]) -> str:
    facts, names = runs[0], run_names([facts.folder for facts in runs])
    # A model that gives labels has no samples.
    samples = [] if facts.task in LABEL_TASKS else [("samples", "Samples", samples_section(facts.samples))]
    sections = [
        ("curves", "Curves", _curves(runs, names)),
        *samples,
        ("evaluation", "Evaluation", _evaluation(facts)),
        ("data", *_data(facts)),
        ("config", "Config", _two_names(facts) + config_section(facts.config)),
        ("environment", "Environment", environment_section(facts.environment)),
        ("glossary", "Glossary", glossary_section()),
    ]
    if len(runs) > 1:  # what is of the first run alone says so
        sections = [
            (key, name if key in ("curves", "glossary") else f"{name} of {escaped(names[0])}", body)
            for key, name, body in sections
        ]
        sections.insert(0, ("comparison", "Comparison", comparison_section(runs, names)))
    header = _header(facts) if len(runs) == 1 else _comparison_header(runs, names)
    footnote = "" if all(facts.task for facts in runs) else UNITS
    return page(_title(names), header, sections, "acorn report", footnote)


def _evaluation(facts: RunFacts) -> str:
    if facts.task:
        return finetuned_section(facts.evaluation, facts.predictions)
    return evaluation_section(facts.evaluation, facts.weights_of_step, scored_text(facts))


def _data(facts: RunFacts) -> tuple[str, str]:
    """Title and content of the section on what the run was trained on."""
    if facts.task:
        return "Examples", examples_table(facts.shards)
    return "Data and tokenizer", data_section(facts.shards)


def page(title: str, header: str, sections: Sequence[tuple[str, str, str]], command: str, footnote: str = UNITS) -> str:
    """A whole page that needs nothing outside it.

    Args:
        header: ready HTML.
        sections: id, title and ready HTML of each.
        command: what wrote it.
        footnote: ready HTML for the foot of the page.
    """
    files = resources.files("acorn.report")
    style, script = (files.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    # The policy forbids the page every connection, and every script but the one below.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
    bodies = "".join(f'<section id="{key}"><h2>{name}</h2>{body}</section>\n' for key, name, body in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)} {TITLE_END}
<style>
{style}</style>
</head>
<body>
{header}
<nav><p>{links}</p></nav>
<main>
{bodies}</main>
<footer>Written by <code>{command}</code>. {footnote}</footer>
<script>{script}</script>
</body>
</html>
"""


def _header(facts: RunFacts) -> str:
    tiles = [f"<div><dt>{h.label}</dt><dd>{_with_unit(h)}</dd></div>" for h in _headlines(facts) if h.value]
    headline = f'<dl class="headline">{"".join(tiles)}</dl>' if tiles else ""
    return f"""<header>
<p class="eyebrow">acorn · training report</p>
<h1>{escaped(facts.name)}</h1>
<p class="lede">{escaped(_summary(facts))}</p>
{_problems(facts)}{headline}
</header>"""


def _two_names(facts: RunFacts) -> str:
    """Why the model card has another title than this page, where it has."""
    if facts.config_name in ("", facts.name):
        return ""
    return (
        f'<p class="soft">This page is named after the run\'s folder, <b>{escaped(facts.name)}</b>. The model card in '
        f"final/ is named after the config, <b>{escaped(facts.config_name)}</b>, so that equal runs write equal "
        "cards in any folder; <code>name=...</code> in the config changes it.</p>"
    )


def _title(names: Sequence[str]) -> str:
    return " · ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} other runs"


def _comparison_header(runs: Sequence[RunFacts], names: Sequence[str]) -> str:
    """Which runs are compared, a line each."""
    lines = []
    for number, (facts, name) in enumerate(zip(runs, names, strict=True)):
        swatch = f'<i class="swatch c{number % COLOURS}"></i>'
        lines.append(f'<p class="compared">{swatch}<b>{escaped(name)}</b> {escaped(_summary(facts))}</p>')
    return f"""<header>
<p class="eyebrow">acorn · comparison of {len(runs)} runs</p>
<h1>{escaped(_title(names))}</h1>
{"".join(lines)}
{_problems(runs[0])}
</header>"""


def _summary(facts: RunFacts) -> str:
    """What was trained, on how much, for how long, and whether it is done."""
    model, train = facts.config.get("model", {}), facts.config.get("train", {})
    size = f" of {short(facts.parameters)} parameters" if facts.parameters else ""
    known = [f"architecture {model['architecture']}"] if "architecture" in model else []
    known += [f"config {facts.config_name}"] if facts.config_name not in ("", facts.name) else []
    sentence = f"{_kind(facts)}{size}" + (f" ({', '.join(known)})" if known else "")
    if not facts.last:
        return f"{sentence}. Training has not logged a step yet."
    tokens, seconds = facts.last.get("tokens"), facts.last.get("seconds")
    sentence += f", {facts.beginning} on {short(tokens)} tokens" if tokens else ""
    sentence += f" in {unbroken(duration(seconds))}" if seconds else ""
    sentence += f", with {kept} frozen" if (kept := _frozen(facts)) else ""
    if facts.finished:
        return f"{sentence}."
    steps = f" of {figure(train['steps'])}" if train.get("steps") else ""
    return f"{sentence} so far. It is at step {facts.last['step']:,}{steps} and has no final model yet."


def _frozen(facts: RunFacts) -> str:
    """What of the base was not trained (`finetune.freeze`); empty: nothing, or the config does not say it."""
    frozen, blocks = facts.config.get("finetune", {}).get("freeze"), facts.config.get("model", {}).get("n_layer")
    return frozen_parts(frozen, blocks) if isinstance(frozen, int) and isinstance(blocks, int) else ""


def _kind(facts: RunFacts) -> str:
    return f"A model for the task {facts.task}" if facts.task else "A language model"


def _task_headlines(facts: RunFacts) -> list[Headline]:
    """What a finetuned model does on held-out examples, beside its baselines."""
    examples = facts.counted("train", "examples")
    return [
        *(Headline(found.label, found.value, note=found.note) for found in main_figures(facts, MAIN_TILES)),
        Headline("Training examples", figure(examples) if examples else ""),
        Headline("Parameters", short(facts.parameters) if facts.parameters else ""),
        Headline("Training time", unbroken(duration(facts.last["seconds"])) if "seconds" in facts.last else ""),
    ]


def _headlines(facts: RunFacts) -> list[Headline]:
    if facts.task:
        return _task_headlines(facts)
    split = "test" if facts.figure("test", "word_perplexity") is not None else "valid"
    valid, test, words = _scored("valid", facts), _scored("test", facts), facts.figure(split, "word_perplexity")
    share, of_text = facts.typical("mfu"), beside(scored_text(facts))
    loss = _scored("valid", facts, " loss")
    return [
        Headline(valid, _number(facts.figure("valid", "bits_per_byte"), 4), "bits per byte", of_text),
        Headline(test, _number(facts.figure("test", "bits_per_byte"), 4), "bits per byte", of_text),
        Headline(loss, _number(facts.figure("valid", "loss_per_token"), 4), "nats per token", of_text),
        Headline(_scored(split, facts, " word perplexity"), figure(words) if words else "", note=of_text),
        Headline("Parameters", short(facts.parameters) if facts.parameters else ""),
        Headline("Tokens seen", short(facts.last["tokens"]) if "tokens" in facts.last else ""),
        Headline("Training time", unbroken(duration(facts.last["seconds"])) if "seconds" in facts.last else ""),
        Headline(
            "Tokens per second",
            _number(facts.typical("tokens_per_second"), 0),
            f"{100 * share:.0f} % of peak (MFU)" if share else "",
        ),
    ]


def _scored(split: str, facts: RunFacts, figure_name: str = "") -> str:
    """The label of a split's figure, which says where it is not of the finished model or not of the whole split."""
    so_far = "" if split in facts.evaluation else " so far"
    return SPLITS[split] + figure_name + so_far + _part(split, facts)


def _part(split: str, facts: RunFacts) -> str:
    """The part of a split that was scored; empty where it is all of it, or not known."""
    part = scored_part(facts, split, in_curve=split not in facts.evaluation)
    return "" if part is None or part[0] == part[1] else f", first {short(part[0])} tokens"


def _curves(runs: Sequence[RunFacts], names: Sequence[str]) -> str:
    curves = [RunCurves(name, facts.curves.train, facts.curves.valid) for name, facts in zip(names, runs, strict=True)]
    loss = loss_chart(curves, loss_unit(runs))
    if not loss:
        return absent("No loss has been logged, so there is nothing to draw yet.")
    notes = curve_notes(runs[0]) if len(runs) == 1 else curve_caveats(runs, names)
    said = "".join(f'<p class="soft">{escaped(note)}</p>' for note in notes)
    return f'{axis_switch()}{loss}{said}<div class="grid-two">{bits_chart(curves)}{measure_charts(curves)}</div>'


def _problems(facts: RunFacts) -> str:
    return "".join(f'<p class="problem">{escaped(problem)}</p>' for problem in facts.problems)


def _with_unit(headline: Headline) -> str:
    if not headline.value:
        return "—"
    return noted(headline.value + (f" <small>{headline.unit}</small>" if headline.unit else ""), headline.note)


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:,.{decimals}f}"
