"""`python -m benchmarks`: runs the benchmarks, prints tables, writes a JSON file and a chart. `make bench` calls it."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.chart import draw_chart
from benchmarks.costs import measure_costs
from benchmarks.finetuning import DEFAULT_TASKS, FINETUNE_TASKS, measure_finetuning
from benchmarks.generation import MODELS, measure_generation
from benchmarks.lora_memory import measure_lora_memory
from benchmarks.machine import machine_facts, read_bandwidth
from benchmarks.quality import measure_quality
from benchmarks.serving import CLIENTS, PROMPT_TOKENS, measure_serving
from benchmarks.startup import measure_startup
from benchmarks.text import measure_text
from benchmarks.training import TASKS, TASKS_OF, measure_training


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"benchmarks to run: {', '.join(PARTS)} (all but quality)")
    parser.add_argument("--rounds", type=int, default=3, help="turns per contender (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds per turn (3)")
    parser.add_argument("--tasks", nargs="*", help=f"models to train: {', '.join(TASKS)} (those for the device)")
    parser.add_argument(
        "--models", nargs="*", default=list(MODELS), help=f"models to generate with: {', '.join(MODELS)}"
    )
    parser.add_argument("--prompts", nargs="*", type=int, default=[1, 16], help="batch sizes of generation (1 and 16)")
    parser.add_argument(
        "--finetune-tasks", nargs="*", default=list(DEFAULT_TASKS), help=f"of: {', '.join(FINETUNE_TASKS)}"
    )
    parser.add_argument(
        "--only", default="", help="only contenders whose name contains this (serve: or one of several, A,B)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--clients", nargs="*", type=int, default=list(CLIENTS), help="of a server (1, 4 and 16)")
    parser.add_argument(
        "--prompt-tokens", nargs="*", type=int, default=list(PROMPT_TOKENS), help="of requests to a server (69 and 400)"
    )
    for name in ("litgpt", "trl", "serving"):
        python = _python_of(f".venv-{name}")
        parser.add_argument(f"--{name}-python", default=python, help=f"interpreter of an environment with {name}")
    parser.add_argument("--text-megabytes", type=int, default=50, help="megabytes of text to encode (50)")
    parser.add_argument("--original-minutes", type=float, default=15, help="minutes of the original's run (15)")
    parser.add_argument("--minutes", type=float, nargs="*", default=[0.5, 0.6, 15], help="minutes of acorn's runs")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of acorn's runs")
    parser.add_argument("--json", type=Path, help="file for the results; a chart (.png) is written beside it")
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": machine_facts(options.device)}
    found["machine"]["read_bytes_per_second"] = read_bandwidth(options.device)
    print(json.dumps(found["machine"]))
    for name in options.parts or [name for name in PARTS if name != "quality"]:
        found[name] = PARTS[name](options)
        if options.json:
            options.json.write_text(json.dumps(found, indent=2) + "\n")
            draw_chart({"train": {}, "generate": {}} | found, options.json.with_suffix(".png"))


def _say(line: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def _python_of(environment: str) -> str | None:
    """The interpreter of an environment that `make bench` creates, if it exists."""
    return shutil.which(Path(__file__).resolve().parent.parent / environment / "bin/python")


def _train(options: argparse.Namespace) -> Any:
    return measure_training(
        options.tasks or TASKS_OF[options.device],
        options.device,
        options.litgpt_python,
        options.rounds,
        options.seconds,
        options.only,
        _say,
    )


def _finetune(options: argparse.Namespace) -> Any:
    return measure_finetuning(
        options.finetune_tasks, options.trl_python, options.rounds, options.seconds, options.only, _say
    )


def _text(options: argparse.Namespace) -> Any:
    return measure_text(options.text_megabytes, options.rounds, _say)


def _generate(options: argparse.Namespace) -> Any:
    return measure_generation(options.models, options.prompts, options.rounds, options.only, _say)


def _serve(options: argparse.Namespace) -> Any:
    return measure_serving(
        options.models,
        options.serving_python,
        options.rounds,
        options.seconds,
        options.only,
        _say,
        options.clients,
        options.prompt_tokens,
    )


def _quality(options: argparse.Namespace) -> Any:
    return measure_quality(options.original_minutes, options.minutes, options.set, options.device, _say)


def _start(options: argparse.Namespace) -> Any:
    return measure_startup(options.rounds)


def _costs(options: argparse.Namespace) -> Any:
    return measure_costs(options.rounds, options.seconds, _say)


def _lora_memory(options: argparse.Namespace) -> Any:
    return measure_lora_memory(_say)


PARTS = {
    "train": _train,
    "finetune": _finetune,
    "costs": _costs,
    "generate": _generate,
    "serve": _serve,
    "text": _text,
    "start": _start,
    "lora-memory": _lora_memory,
    "quality": _quality,
}


if __name__ == "__main__":
    main()
