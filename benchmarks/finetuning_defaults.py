"""Where the defaults of `acorn finetune` come from: rates, epochs and batch sizes, on three tasks and any bases.

    python examples/finetuning/mails.py package/data --each 100 --out mails
    python examples/finetuning/dates.py --examples 1500 --out dates
    python examples/finetuning/shakespeare.py my-plays.txt --out shakespeare.jsonl
    python -m benchmarks.finetuning_defaults --base runs/small --base runs/large --out sweep \
        --spam mails/train.jsonl --spam-valid mails/rest.jsonl --dates dates/train.jsonl --chat shakespeare.jsonl

Lengths are in epochs, so a busy machine changes nothing but the time. The same command resumes a sweep that was
stopped. It prints a table of the validation side: accuracy, exact match, and the loss in nats per answer token. The
test rows of mails and dates have no part in it. About half an hour on two cores for two bases of 1.5 and 5 million
parameters.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TASKS = ("spam", "dates", "chat")
MOST_ROWS = {"chat": 600, "spam-valid": 500}
"""Rows that are used, the first ones; of other files all. Answers of chat take long to generate."""

QUIET = ("train.eval_every=0", "train.save_every=0", "train.log_every=10")


class Trial(NamedTuple):
    """One setting of the sweep."""

    lora: int
    rate: float
    epochs: int
    batch: int

    @property
    def name(self) -> str:
        return f"{'lora' if self.lora else 'full'}-{self.rate:g}-{self.epochs}-{self.batch}"


def trials(whole: bool) -> Iterator[Trial]:
    """The settings: rates, then lengths and batch sizes at one rate.

    Args:
        whole: false leaves out short runs and other batch sizes.
    """
    for rate, epochs in itertools.product((3e-4, 1e-3, 3e-3, 1e-2), (3, 10) if whole else (10,)):
        yield Trial(0, rate, epochs, 16)
    for rate in (3e-3, 1e-2, 3e-2):
        yield Trial(8, rate, 10, 16)
    if whole:
        for batch in (4, 8, 32):
            yield Trial(0, 3e-3, 10, batch)


def run(base: Path, rows: list[str], trial: Trial, out: Path, settings: list[str]) -> dict[str, float]:
    """Figures of the validation side after `acorn finetune`, and its seconds."""
    began = time.monotonic()
    command = [
        *(sys.executable, "-m", "acorn", "finetune", str(base), *rows, "--out", str(out)),
        *("--resume", "--json", "--lora", str(trial.lora), f"optimizer.lr={trial.rate:g}"),
        *(f"finetune.epochs={trial.epochs}", f"train.batch_size={trial.batch}", *QUIET, *settings),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    figures = json.loads(done.stdout)["evaluation"]["valid"]
    names = ("accuracy", "macro_f1", "exact_match", "answer_loss", "loss")
    return {name: figures[name] for name in names if figures.get(name) is not None} | {
        "seconds": round(time.monotonic() - began, 1)
    }


def table(results: dict[str, dict[str, float]], tasks: list[str]) -> str:
    """The results as Markdown, a row for each base and setting."""
    rows: dict[str, dict[str, str]] = {}
    for key, figures in results.items():
        base, task, trial = key.split("/")
        shown = [f"{figures[name]:.3f}" for name in ("accuracy", "exact_match", "answer_loss") if name in figures]
        rows.setdefault(f"| {base} | {trial} |", {})[task] = ", ".join(shown)
    lines = [f"| base | rate, epochs, batch | {' | '.join(tasks)} |", "|---|---|" + "---|" * len(tasks)]
    lines += [f"{row} {' | '.join(found.get(task, '') for task in tasks)} |" for row, found in rows.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, action="append", required=True, help="a base; the first gets all settings")
    for name in (*TASKS, "spam-valid"):
        parser.add_argument(f"--{name}", type=Path, help=f"rows of {name}")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of every run")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[str]] = {}
    for name in (*TASKS, "spam-valid"):
        if path := getattr(options, name.replace("-", "_")):
            used = options.out / f"{name}.jsonl"
            lines = path.read_text("utf-8").splitlines(keepends=True)
            used.write_text("".join(lines[: MOST_ROWS.get(name)]), "utf-8")
            task, _, side = name.partition("-")
            rows.setdefault(task, []).extend((f"--{side or 'data'}", str(used)))
    kept = options.out / "results.json"
    results: dict[str, dict[str, float]] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for base, task in itertools.product(options.base, rows):
        for trial in trials(whole=base == options.base[0]):
            key = f"{base.name}/{task}/{trial.name}"
            if key not in results:
                results[key] = run(base, rows[task], trial, options.out / base.name / task / trial.name, options.set)
                kept.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
                print(key, results[key], file=sys.stderr, flush=True)
    print(table(results, list(rows)))


if __name__ == "__main__":
    main()
