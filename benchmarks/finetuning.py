"""Finetuning speed of acorn and of TRL's SFTTrainer, on the same model, examples, batches and precision.

TRL gets acorn's exported model, and the examples as acorn's token ids, in acorn's order: so every batch is the same,
and so is every loss up to rounding, which is compared in fp32. The rate counts the trained tokens: those of answers.
"""

from __future__ import annotations

import calendar
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import acorn
from acorn.config import Config, DataConfig, TrainConfig
from acorn.data.example_batches import ExampleOrder
from acorn.data.examples import CompletionEncoder, TokenExample
from acorn.run.resolve import choose_runtime
from acorn.text.examples import Completion
from acorn.text.splits import TextSplits
from acorn.tokenizer.completion_format import CompletionFormat
from benchmarks.turns import Contender, take_turns

LORA_RANK = 8
BATCH_SIZE = 16
CONTEXT = 256
EXAMPLES = 4096
STEPS = 1024
"""Steps until TRL starts over with its rows: four epochs. acorn goes on in another order then."""
COMPARED_STEPS = 10
"""Steps whose losses are compared in fp32."""
WARM_UP = 4
UNREACHABLE_STEPS = 1_000_000
RATES = {0: 3e-4, LORA_RANK: 3e-3}
"""Rank (0: all weights) -> learning rate: those of `acorn finetune`."""

Rows = list[tuple[str, str]]


def date_rows() -> Rows:
    """Dates as people write them -> ISO dates: about 20 tokens each, 10 of them trained."""
    draw = random.Random(0)
    rows: set[tuple[str, str]] = set()
    while len(rows) < EXAMPLES:
        year, month, day = draw.randint(1800, 2099), draw.randint(1, 12), draw.randint(1, 28)
        name = calendar.month_name[month]
        written = draw.choice((f"{day} {name} {year}", f"{name} {day}, {year}", f"{day}/{month}/{year}"))
        rows.add((f"{written} -> ", f"{year}-{month:02}-{day:02}"))
    return sorted(rows)


def text_rows() -> Rows:
    """Paragraphs of WikiText-2, cut to 100 to 700 characters: the first two thirds are the prompt."""
    draw = random.Random(0)
    rows: set[tuple[str, str]] = set()
    for document in TextSplits.open(DataConfig(source=("bundled:wikitext-2",))).documents("train"):
        words = document.text.strip()[: draw.randint(100, 700)].split()
        if len(words) > 15:
            middle = 2 * len(words) // 3
            rows.add((" ".join(words[:middle]), " " + " ".join(words[middle:])))
        if len(rows) == EXAMPLES:
            break
    return sorted(rows)


@dataclass(frozen=True)
class FinetuneTask:
    """A base model (modern, 8,192 BPE entries) and examples."""

    n_layer: int
    n_embd: int
    rows: Callable[[], Rows]


FINETUNE_TASKS = {
    "tiny": FinetuneTask(1, 64, date_rows),
    "dates-256": FinetuneTask(4, 256, date_rows),
    "texts-256": FinetuneTask(4, 256, text_rows),
    "dates-512": FinetuneTask(6, 512, date_rows),
    "texts-512": FinetuneTask(6, 512, text_rows),
}
DEFAULT_TASKS = ("dates-256", "texts-512")


def measure_finetuning(
    names: list[str], trl_python: str | None, rounds: int, seconds: float, only: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """A table for each task.

    Args:
        trl_python: interpreter of an environment with TRL and PEFT; None: acorn is measured alone.
        only: measures contenders whose name contains this; empty: all.
    """
    precision = choose_runtime(TrainConfig(device="cpu")).precision
    precision = "fp32" if precision == "fp16" else precision  # PyTorch's fp16 matmuls are no faster on a CPU
    tables = {}
    with tempfile.TemporaryDirectory(prefix="acorn-bench-") as place:
        folder = Path(place)
        acorn.Tokenizer.train(["bundled:wikitext-2"], kind="bpe", vocab_size=8192).save(folder / "tokenizer.json")
        for name in names:
            say(f"finetuning {name}: making model and examples")
            task = FINETUNE_TASKS[name]
            paths = prepare_task(folder / name, folder / "tokenizer.json", task)
            rows = []
            for rank in RATES:
                pair = [c for c in contenders_of(paths, rank, precision, trl_python, WARM_UP) if only in c.name]
                take_turns(pair, rounds=rounds, seconds=seconds, say=say)
                rows += [_facts(contender, pair[0]) for contender in pair]
            tables[name] = {
                "task": {"n_layer": task.n_layer, "n_embd": task.n_embd, "rows": task.rows.__name__},
                "batch_size": BATCH_SIZE,
                "precision": precision,
                "contenders": rows,
                "losses": {} if only or not trl_python else _compared_losses(paths, trl_python, say),
            }
            _print(name, tables[name])
    return tables


def prepare_task(folder: Path, tokenizer: Path, task: FinetuneTask) -> dict[str, str]:
    """Makes the base model and the examples.

    Returns:
        paths: `model`, `rows` and `valid` for acorn; `tokens` and `counts` for TRL.
    """
    base = folder / "base"
    sizes = [f"model.n_layer={task.n_layer}", f"model.n_embd={task.n_embd}", f"model.block_size={CONTEXT}"]
    short = ["train.steps=20", "train.batch_size=8", "train.eval_tokens=2000", "train.eval_every=0"]
    source = ["data.source=bundled:wikitext-2", f"tokenizer.path={tokenizer}"]
    command = [sys.executable, "-m", "acorn", "pretrain", "small", *source, *sizes, *short, "--out", str(base)]
    subprocess.run(command, check=True, capture_output=True)
    rows = task.rows()
    paths = {name: folder / f"{name}.jsonl" for name in ("rows", "valid")}
    for name, some in (("rows", rows), ("valid", [("What follows? ", "An answer.")])):
        records = ({"prompt": prompt, "completion": completion} for prompt, completion in some)
        paths[name].write_text("".join(f"{json.dumps(record)}\n" for record in records))
    encoder = CompletionEncoder(CompletionFormat(acorn.Tokenizer.from_file(tokenizer)))
    tokens = encoder.encode([Completion(prompt, completion, "") for prompt, completion in rows])
    order = ExampleOrder(len(tokens), TrainConfig().seed)
    samples = [tokens[number] for number in order.examples(0, STEPS * BATCH_SIZE)]
    paths |= {"model": base / "final", "tokens": folder / "tokens.json", "counts": folder / "counts.json"}
    paths["tokens"].write_text(json.dumps([labelled(example) for example in samples]))
    paths["counts"].write_text(json.dumps(list(_counts(samples))))
    return {name: str(path) for name, path in paths.items()}


def labelled(example: TokenExample) -> dict[str, list[int]]:
    """An example as TRL takes it: all its ids, and each trained one again as its own label (-100: not trained)."""
    ids = [*example.ids.tolist(), int(example.values[-1])]
    labels = np.full(len(ids), -100)
    labels[example.rows + 1] = example.values
    return {"input_ids": ids, "labels": labels.tolist()}


def _counts(samples: list[TokenExample]) -> Iterator[int]:
    """Trained tokens of each step."""
    for first in range(0, len(samples), BATCH_SIZE):
        yield sum(len(example.rows) for example in samples[first : first + BATCH_SIZE])


def contenders_of(
    paths: dict[str, str], rank: int, precision: str, trl_python: str | None, warm_up: int, log_every: int = 10
) -> list[Contender]:
    """acorn, and TRL if it is there, with equal settings.

    Args:
        rank: of LoRA's factors; 0: all weights are trained.
        log_every: TRL's steps between logs; acorn logs each.
    """
    rate, optimizer = RATES[rank], Config().optimizer
    settings = {
        "train.steps": UNREACHABLE_STEPS,
        "train.batch_size": BATCH_SIZE,
        "train.device": "cpu",
        "train.precision": precision,
        "train.eval_every": 0,
        "train.save_every": 0,
        "schedule.name": "constant",
        "schedule.warmup": 0,
        "optimizer.name": "adamw",
        "optimizer.lr": rate,
        "optimizer.weight_decay": 0,
        "model.dropout": 0,
    }
    trainer = {
        "max_steps": UNREACHABLE_STEPS,
        "per_device_train_batch_size": BATCH_SIZE,
        "bf16": precision == "bf16",
        "learning_rate": rate,
        "weight_decay": 0.0,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.eps,
        "max_grad_norm": optimizer.clip,
        "logging_steps": log_every,
    }
    common = {"warm_up": warm_up, "lora_rank": rank, **paths}
    suffix = f", LoRA of rank {rank}" if rank else ""
    ours = common | {"settings": [f"{key}={value}" for key, value in settings.items()]}
    found = [Contender(f"acorn{suffix}", "acorn_finetuning", ours)]
    if trl_python:
        theirs = common | {"trainer": trainer}
        found.append(Contender(f"TRL{suffix}", "trl_finetuning", theirs, python=trl_python))
    return found


def _facts(contender: Contender, first: Contender) -> dict[str, Any]:
    facts = contender.facts()
    if contender.failure:
        return facts
    tokens = sum(turn["tokens"] for turn in contender.turns)
    facts["tokens_per_cpu_second"] = tokens / sum(turn["cpu_seconds"] for turn in contender.turns)
    if not first.failure:
        facts["acorn_is_faster_by"] = first.rate / contender.rate
    return facts


def _compared_losses(paths: dict[str, str], trl_python: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The losses of the same steps in fp32: rank -> contender -> losses. One that failed has none."""
    losses: dict[str, Any] = {}
    for rank in RATES:
        pair = contenders_of(paths, rank, "fp32", trl_python, COMPARED_STEPS, log_every=1)
        for contender in pair:
            take_turns([contender], rounds=0, seconds=0, say=say)
        losses[str(rank)] = {c.name: c.ready.get("losses", []) for c in pair}
    return losses


def _print(name: str, table: dict[str, Any]) -> None:
    print(f"\nfinetuning {name}, {table['batch_size']} examples a step, {table['precision']}")
    print(f"{'':28}{'trained tokens/s':>18}{'slower by':>11}{'per CPU second':>16}{'memory':>11}")
    for row in table["contenders"]:
        if "failure" in row:
            print(f"{row['name']:28}not measured: {row['failure']}")
            continue
        slower_by = f"{row['acorn_is_faster_by']:.2f}x" if "acorn_is_faster_by" in row else "-"
        print(
            f"{row['name']:28}{row['tokens_per_second']:>18,.0f}{slower_by:>11}"
            f"{row['tokens_per_cpu_second']:>16,.0f}{row['peak_bytes'] / 2**20:>7,.0f} MiB"
        )
    for of_rank in table["losses"].values():
        for who, losses in of_rank.items():
            if not losses:
                continue
            ends = (
                f"{losses[0]:.5f} in the first step, {np.mean(losses[-4:]):.5f} in the last four" if losses else "none"
            )
            print(f"{who}, losses of {len(losses)} steps in fp32: {ends}")
    sys.stdout.flush()
