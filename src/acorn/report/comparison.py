"""Several runs side by side: their figures, what those were measured on, and where the settings differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from acorn.figure_names import SCORES as NAMES
from acorn.figure_names import SPLITS, beside, in_a_sentence
from acorn.report.charts import COLOURS
from acorn.report.comparability import CONDITIONS_TO_MATCH, LABELS, Conditions, conditions_of, differing, scored_text
from acorn.report.curve_notes import rise_note
from acorn.report.formats import duration, figure, short, unbroken
from acorn.report.markup import absent, escaped, mapping_in, noted, table
from acorn.report.run_facts import RunFacts
from acorn.report.seeds import SeedGroup, Spread, seed_groups
from acorn.report.settings import OF_THE_MACHINE, flat_settings, setting_name, spelled_out
from acorn.report.task_figures import comparison_rows, example_rows

HELD_OUT_SPLITS = ("valid", "test")


class Measured(NamedTuple):
    """A row of figures that depend on the text they were measured on."""

    split: str
    name: str
    label: str
    decimals: int


SCORE_ROWS = tuple(
    Measured(split, name, f"{SPLITS[split]} {in_a_sentence(NAMES[name])}", decimals)
    for name, decimals in (("bits_per_byte", 4), ("loss_per_token", 4), ("word_perplexity", 1))
    for split in HELD_OUT_SPLITS
)


def run_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the folders' paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(folder) for folder in folders]


def comparison_section(runs: Sequence[RunFacts], names: Sequence[str]) -> str:
    """The section, one column per run. What makes figures incomparable stands beside them."""
    heads = ["", *(f'<i class="swatch c{n % COLOURS}"></i>{escaped(name)}' for n, name in enumerate(names))]
    problems = [problem for facts in runs[1:] for problem in facts.problems]
    parts = [f'<p class="problem">{escaped(problem)}</p>' for problem in problems]
    by_split = {split: conditions_of(runs, split) for split in HELD_OUT_SPLITS}
    parts.append(table(heads, [*_measured_rows(runs, by_split), *comparison_rows(runs), *_other_rows(runs)]))
    if examples := example_rows(runs):
        parts.append(f"<h3>Examples</h3>{table(heads, examples)}")
    parts += [_seed_table(runs, names, group) for group in seed_groups(runs)]
    parts.append(_changed_when_resumed(runs, names))
    for split, conditions in by_split.items():
        if any(facts.figure(split, row.name) is not None for facts in runs for row in SCORE_ROWS if row.split == split):
            parts.append(f"<h3>How the {SPLITS[split].lower()} figures were measured</h3>")
            parts.append(table(heads, _condition_rows(conditions)))
    parts.append("<h3>Settings that differ</h3>")
    differing_rows = _differing_settings(runs)
    asked = [row for key, row in differing_rows.items() if key not in OF_THE_MACHINE]
    parts.append(table(heads, asked) if asked else absent("None."))
    if of_the_machine := [row for key, row in differing_rows.items() if key in OF_THE_MACHINE]:
        parts.append("<h3>Settings that differ and that acorn may have chosen for the machine</h3>")
        parts.append(table(heads, of_the_machine))
    return "".join(parts)


def curve_caveats(runs: Sequence[RunFacts], names: Sequence[str]) -> list[str]:
    """Sentences on the curves of runs that do not measure the same, and on those whose validation rose again."""
    valid, train = (conditions_of(runs, split, in_curve=True) for split in ("valid", "train"))
    said = []
    if wrong := differing(valid, CONDITIONS_TO_MATCH["bits_per_byte"]):
        said.append(
            f"Validation losses and bits per byte are not comparable between these runs: different {_listed(wrong)}."
        )
    elif wrong := differing(valid, CONDITIONS_TO_MATCH["loss_per_token"]):
        have_bits = all("bits_per_byte" in record for facts in runs for record in facts.curves.valid)
        bits = "; bits per byte are" if have_bits else ""
        said.append(f"Validation losses are not comparable between these runs (different {_listed(wrong)}){bits}.")
    if "part" in differing(valid, CONDITIONS_TO_MATCH["bits_per_byte"]):
        parts = [f"{name}: {one.values['part'] or 'unknown'}" for name, one in zip(names, valid, strict=True)]
        said.append(f"Tokens scored by each validation (train.eval_tokens): {'; '.join(parts)}.")
    if wrong := differing(train, ("text", "cleaning", "normalization", "tokenizer")):
        said.append(f"Training losses are not comparable between these runs: different {_listed(wrong)}.")
    rises = zip(names, map(rise_note, runs), strict=True)
    return said + [f"{name}: {note}" for name, note in rises if note]


def _measured_rows(runs: Sequence[RunFacts], by_split: dict[str, list[Conditions]]) -> list[list[str]]:
    rows = []
    for row in SCORE_ROWS:
        values = [facts.figure(row.split, row.name) for facts in runs]
        if all(value is None for value in values):
            continue
        known = [c for c, value in zip(by_split[row.split], values, strict=True) if value is not None]
        wrong = differing(known, CONDITIONS_TO_MATCH[row.name])
        label = noted(row.label, f"not comparable: different {_listed(wrong)}" if wrong else "", "warning")
        texts = [scored_text(facts) for facts in runs]
        common = texts[0] if len(set(texts)) == 1 else ""
        cells = (_measured(facts, row, "" if common else text) for facts, text in zip(runs, texts, strict=True))
        rows.append([noted(label, beside(common)), *cells])
    return rows


def _measured(facts: RunFacts, row: Measured, altered: str) -> str:
    """A run's figure with which text it is of, where that is not the original; or the reason why it is not given."""
    value = facts.figure(row.split, row.name)
    note = mapping_in(facts.evaluation, row.split).get(f"{row.name}_note")
    if value is None:
        return noted(_number(None, row.decimals), str(note or ""))
    return noted(_number(value, row.decimals), beside(altered))


def _other_rows(runs: Sequence[RunFacts]) -> list[list[str]]:
    """Figures that any two runs may be compared by."""
    rows = [
        ["Parameters", *(short(facts.parameters) if facts.parameters else "—" for facts in runs)],
        ["Tokens seen", *(short(facts.last["tokens"]) if "tokens" in facts.last else "—" for facts in runs)],
        [
            "Training time",
            *(unbroken(duration(facts.last["seconds"])) if "seconds" in facts.last else "—" for facts in runs),
        ],
        ["Tokens per second", *(_number(facts.typical("tokens_per_second"), 0) for facts in runs)],
    ]
    return [row for row in rows if any(cell != "—" for cell in row[1:])]


def _condition_rows(conditions: Sequence[Conditions]) -> list[list[str]]:
    """One row a condition; those that differ are marked."""
    rows = []
    for name, label in LABELS.items():
        values = [one.values.get(name, "") for one in conditions]
        if not any(values):
            continue
        differs = name != "weights" and differing(conditions, [name])  # other weights are what is compared
        name_cell = noted(escaped(label[:1].upper() + label[1:]), "differs" if differs else "", "warning")
        rows.append([name_cell, *(escaped(value or "—") for value in values)])
    return rows


def _seed_table(runs: Sequence[RunFacts], names: Sequence[str], group: SeedGroup) -> str:
    """Mean and spread of runs that differ in their seed alone."""
    if not group.spreads:
        return ""
    members = ", ".join(f"{names[n]} ({figure(seed)})" for n, seed in zip(group.members, group.seeds, strict=True))
    rows = [
        [row.label, *_spread_cells(group.spreads[row.split, row.name], row.decimals)]
        for row in SCORE_ROWS
        if (row.split, row.name) in group.spreads
    ]
    return (
        f"<h3>Mean and spread over {len(group.members)} seeds</h3>"
        f'<p class="soft">Finished runs that differ in <code>train.seed</code> alone: {escaped(members)}.</p>'
        + table(["", "mean", "standard deviation", "lowest", "highest", "runs"], rows)
    )


def _changed_when_resumed(runs: Sequence[RunFacts], names: Sequence[str]) -> str:
    """Names the runs whose figures may differ from those of an uninterrupted run of their config."""
    changed = [name for facts, name in zip(runs, names, strict=True) if facts.finished and not facts.undisturbed]
    if not changed:
        return ""
    return (
        f'<p class="problem">Changed when resumed (its length, another setting or the machine): '
        f"{escaped(', '.join(changed))}. Such a run may differ from an uninterrupted run of its config, so means "
        "over seeds leave it out where there are other runs.</p>"
    )


def _spread_cells(spread: Spread, decimals: int) -> list[str]:
    values = (spread.mean, spread.deviation, spread.low, spread.high)
    return [*(f"{value:,.{decimals}f}" for value in values), str(spread.count)]


def _differing_settings(runs: Sequence[RunFacts]) -> dict[str, list[str]]:
    """Key -> row of the settings that were set to something else and mean something else."""
    written, meant = [flat_settings(facts.config) for facts in runs], [spelled_out(facts.config) for facts in runs]
    rows = {}
    for key in dict.fromkeys(key for settings in written for key in settings):
        values = [settings.get(key) for settings in meant]
        if all(len(set(map(repr, (side.get(key) for side in sides)))) > 1 for sides in (written, meant)):
            rows[key] = [setting_name(key), *(escaped(figure(value)) for value in values)]
    return rows


def _listed(names: Sequence[str]) -> str:
    words = [LABELS[name].removesuffix(" (tokens)") for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _number(value: float | None, decimals: int) -> str:
    return "—" if value is None else f"{value:,.{decimals}f}"
