"""The report of a run: one HTML file that needs nothing outside it, for light, dark and paper."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from acorn.files import write_file
from acorn.report.charts import COLOURS, axis_switch, bits_chart, loss_chart, measure_charts
from acorn.report.curves import RunCurves
from acorn.report.formats import duration, figure, short
from acorn.report.glossary import glossary_section
from acorn.report.markup import absent, escaped, table
from acorn.report.run_facts import RunFacts, read_run
from acorn.report.sections import (
    config_section,
    data_section,
    environment_section,
    evaluation_section,
    samples_section,
)
from acorn.run_folder import RunFolder


class Headline(NamedTuple):
    """A figure a reader looks for first; `value` is empty where it is not known."""

    label: str
    value: str
    unit: str = ""


def write_report(run: Path, compare: Sequence[Path] = ()) -> Path:
    """Writes RUN/report.html and returns its path.

    Args:
        run: the run folder.
        compare: other run folders, whose curves are laid over and whose figures and configs are set side by side.

    Raises:
        UsageError: one of the folders is not a run folder.
    """
    runs = [read_run(folder) for folder in (run, *compare)]
    path = RunFolder(run).report
    write_file(path, _page(runs))
    return path


def _page(runs: Sequence[RunFacts]) -> str:
    facts, names = runs[0], _names(runs)
    sections = [
        ("curves", "Curves", _curves(runs, names)),
        ("samples", "Samples", samples_section(facts.samples)),
        ("evaluation", "Evaluation", evaluation_section(facts.evaluation)),
        ("data", "Data and tokenizer", data_section(facts.shards)),
        ("config", "Config", config_section(facts.config)),
        ("environment", "Environment", environment_section(facts.environment)),
        ("glossary", "Words", glossary_section()),
    ]
    if len(runs) > 1:
        sections.insert(0, ("comparison", "Comparison", _comparison(runs, names)))
    files = resources.files("acorn.report")
    style, script = (files.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    # The policy forbids the page every connection, and every script but the one below.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    bodies = "".join(f'<section id="{key}"><h2>{title}</h2>{body}</section>\n' for key, title, body in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(facts.name)} · acorn</title>
<style>
{style}</style>
</head>
<body>
{_header(facts)}
<nav><p>{links}</p></nav>
<main>
{bodies}</main>
<footer>Written by <code>acorn report</code>. Loss is in nats per token and depends on the tokenizer; bits per byte does
not.</footer>
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


def _summary(facts: RunFacts) -> str:
    """What was trained, on how much, for how long, and whether it is done."""
    model, train = facts.config.get("model", {}), facts.config.get("train", {})
    size = f" with {short(facts.parameters)} parameters" if facts.parameters else ""
    sentence = f"A {model.get('architecture', 'language')} model{size}"
    if not facts.last:
        return f"{sentence}. Training has not logged a step yet."
    tokens, seconds = facts.last.get("tokens"), facts.last.get("seconds")
    sentence += f", {facts.beginning} on {short(tokens)} tokens" if tokens else ""
    sentence += f" in {duration(seconds)}" if seconds else ""
    if facts.finished:
        return f"{sentence}."
    steps = f" of {figure(train['steps'])}" if train.get("steps") else ""
    return f"{sentence} so far. It stands at step {facts.last['step']:,}{steps} and has no final model yet."


def _headlines(facts: RunFacts) -> list[Headline]:
    split = "test" if facts.figure("test", "word_perplexity") is not None else "valid"
    share = facts.typical("mfu")
    return [
        Headline("Validation", _number(facts.figure("valid", "bits_per_byte"), 4), "bits per byte"),
        Headline("Test", _number(facts.figure("test", "bits_per_byte"), 4), "bits per byte"),
        Headline("Validation loss", _number(facts.figure("valid", "loss_per_token"), 4), "nats per token"),
        Headline("Word perplexity", _number(facts.figure(split, "word_perplexity"), 1), f"on {split}"),
        Headline("Parameters", short(facts.parameters) if facts.parameters else ""),
        Headline("Tokens seen", short(facts.last["tokens"]) if "tokens" in facts.last else ""),
        Headline("Training time", duration(facts.last["seconds"]) if "seconds" in facts.last else ""),
        Headline(
            "Tokens per second",
            _number(facts.typical("tokens_per_second"), 0),
            f"{100 * share:.0f} % of peak" if share else "",
        ),
    ]


def _comparison(runs: Sequence[RunFacts], names: Sequence[str]) -> str:
    """The headline figures, then the settings that differ, a column a run."""
    heads = [f'<i class="swatch c{number % COLOURS}"></i>{escaped(name)}' for number, name in enumerate(names)]
    by_label = zip(*(_headlines(facts) for facts in runs), strict=True)
    rows = [[row[0].label, *map(_with_unit, row)] for row in by_label if any(headline.value for headline in row)]
    parts = ["".join(map(_problems, runs[1:])), table(["", *heads], rows)]
    tokenizers = [json.dumps(facts.shards.get("tokenizer"), sort_keys=True) for facts in runs if facts.shards]
    if len(set(tokenizers)) > 1:
        parts.append("<p>These runs use different tokenizers: compare their bits per byte, not their losses.</p>")
    keys = dict.fromkeys((section, key) for facts in runs for section in facts.config for key in facts.config[section])
    differing = []
    for section, key in keys:
        values = [facts.config.get(section, {}).get(key) for facts in runs]
        if any(value != values[0] for value in values):
            name = f"<code>{escaped(f'{section}.{key}')}</code>"
            differing.append([name, *(escaped(figure(value)) for value in values)])
    parts.append("<h3>Where the configs differ</h3>")
    parts.append(table(["", *heads], differing) if differing else absent("Nowhere."))
    return "".join(parts)


def _curves(runs: Sequence[RunFacts], names: Sequence[str]) -> str:
    curves = [RunCurves(name, facts.curves.train, facts.curves.valid) for name, facts in zip(names, runs, strict=True)]
    loss = loss_chart(curves)
    if not loss:
        return absent("No loss has been logged, so there is nothing to draw yet.")
    note = "" if curves[0].valid else absent("This run was not validated while it trained.")
    return f'{axis_switch()}{loss}{note}<div class="grid-two">{bits_chart(curves)}{measure_charts(curves)}</div>'


def _names(runs: Sequence[RunFacts]) -> list[str]:
    """The runs' names; where several are equal, with their folder's name, or its whole path if that is equal too."""
    own = [facts.name for facts in runs]
    with_folder = [f"{facts.name} ({facts.folder.resolve().name})" for facts in runs]
    with_path = [f"{facts.name} ({facts.folder})" for facts in runs]
    for names in (own, with_folder):
        if max(Counter(names).values()) == 1:
            return names
    return with_path


def _problems(facts: RunFacts) -> str:
    return "".join(f'<p class="problem">{escaped(problem)}</p>' for problem in facts.problems)


def _with_unit(headline: Headline) -> str:
    if not headline.value:
        return "—"
    return headline.value + (f" <small>{headline.unit}</small>" if headline.unit else "")


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:,.{decimals}f}"
