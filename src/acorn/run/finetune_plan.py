"""What a finetuning run will need on this machine, and what would stop it from starting. Its rows are all read."""

from __future__ import annotations

import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from acorn.config import Config
from acorn.errors import ResourceError
from acorn.files import make_folders
from acorn.model.loss import Workspace
from acorn.model.sizing import optimizer_bytes, size_of
from acorn.progress import QUIET, Progress
from acorn.run.budget import COMPILER_BYTES, LIBRARY_BYTES, StepShape, check_disk, step_memory
from acorn.run.finetune import Finetuning
from acorn.run.initial_model import load_initial_model
from acorn.run.lifecycle import Prepared
from acorn.run.start import check_fits, check_machine, check_name
from acorn.run_folder import RunFolder
from acorn.runtime.address_space import is_out_of_memory
from acorn.runtime.memory import available_memory, resident_memory
from acorn.train.examples import Examples, longest_row
from acorn.train.forward_backward import uncompiled_forward_backward
from acorn.train.network import build_network
from acorn.train.optimizer import set_rates
from acorn.train.parallel import uncompiled
from acorn.train.step import initial_counters, train_step

MIN_STEPS, MIN_SECONDS = 2, 5.0
"""So many steps are timed at least, and more until so many seconds have passed."""

TASK = "timing training steps"


def plan_finetuning(config: Config, out: Path, progress: Progress = QUIET) -> dict[str, Any]:
    """Examples, steps, memory and time of a run on this machine. All rows are read; nothing is left behind.

    The time is that of the first steps of the run, on its own examples, beginning with random weights. It covers the
    steps alone, without validation, saves and the end of the run. Sizes are in bytes, `minutes` in minutes.

    Args:
        config: as `finetune_config` gives it.
        out: the folder of the run, which must have enough disk space.

    Raises:
        AcornError: what `finetune` would raise before its first step.
    """
    process = resident_memory()  # of Python and PyTorch alone
    check_name(RunFolder(out))
    kind = Finetuning()
    kind.check(config)
    check_machine(config)
    folders = [Path.cwd()]
    config, initial = load_initial_model(config, progress, folders)
    check_fits(config, RunFolder(out), initial, folders)
    with tempfile.TemporaryDirectory(prefix="acorn-plan-") as temporary:
        run = RunFolder(Path(temporary) / "run")
        make_folders(run.root)
        prepared = kind.prepare(config, run, None, initial, folders, progress)
    del initial  # frees its weights, which would count as used memory
    config, runtime = prepared.config, prepared.runtime
    check_disk(config, out)
    data = prepared.data
    assert isinstance(data, Examples)
    side, model, train = data.sides["train"], config.model, config.train
    available = available_memory(runtime.device)
    try:
        seconds, batch_tokens = step_seconds(prepared, progress)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            "Out of memory in the first steps.",
            where=f"{runtime.device}, {available or 0:,} bytes free before",
            fix="lower train.micro_batch_size or model.block_size, or free memory for this program",
        ) from None
    tokens = sum(len(example.ids) for example in side.tokens)
    shape = StepShape(longest_row(side.tokens, model.block_size), prepared.head, prepared.lora)
    size = size_of(model, prepared.head, prepared.lora)
    # With a length in minutes, the steps follow from the speed; else the time follows from the steps.
    steps = train.steps or int(60 * train.minutes / seconds)
    return {
        "name": config.name,
        "task": data.task.name,
        "architecture": model.architecture,
        "parameters": size.parameters,
        "trained_parameters": size.trained_parameters,
        "vocab_size": model.vocab_size,
        "device": runtime.device,
        "precision": runtime.precision,
        "compile": runtime.compile,
        "threads": runtime.threads,
        "micro_batch_size": train.micro_batch_size,
        "memory_bytes": step_memory(config, runtime, train.micro_batch_size, shape)
        + (process + LIBRARY_BYTES + COMPILER_BYTES * runtime.compile if runtime.device == "cpu" else 0),
        "memory_available_bytes": available,
        "examples": {name: len(listed.tokens) for name, listed in data.sides.items()},
        "train_tokens": tokens,
        "counted_tokens": sum(len(example.rows) for example in side.tokens),
        "longest_example": max(len(example.ids) for example in side.tokens),
        "batch_size": train.batch_size,
        "steps_per_epoch": len(side.tokens) / train.batch_size,
        "steps": steps,
        "epochs": data.epochs(steps * train.batch_size),
        "tokens_per_second": batch_tokens / seconds,
        "minutes": train.minutes or steps * seconds / 60,
        "checkpoint_bytes": 4 * size.parameters
        + optimizer_bytes(model, config.optimizer.name, prepared.head, prepared.lora),
    }


def step_seconds(prepared: Prepared, progress: Progress) -> tuple[float, float]:
    """The mean seconds of a run's first steps, and the mean number of tokens of their batches, without padding."""
    config, runtime, data = prepared.config, prepared.runtime, prepared.data
    devices = range(torch.cuda.device_count())
    with runtime.start(), uncompiled(runtime), torch.random.fork_rng(devices=devices):
        model, optimizers = build_network(config, runtime, Workspace(), head=prepared.head, lora=prepared.lora)
        model.init_weights(0)
        set_rates(optimizers, 0.01)
        counters = initial_counters(1, runtime.precision)
        step = functools.partial(
            train_step,
            model,
            uncompiled_forward_backward(model, runtime),
            optimizers,
            clip=config.optimizer.clip,
            seed=0,
            counters=counters,
            runtime=runtime,
        )
        count = config.train.batch_size
        step(data.batch(0, count, rollbacks=0, done=0.0))  # not timed: the first step of a process takes longer
        begin, done, tokens, seconds = time.perf_counter(), 0, 0, 0.0
        while done < MIN_STEPS or seconds < MIN_SECONDS:
            batch = data.batch(done * count, count, rollbacks=0, done=0.0)
            step(batch)
            if runtime.device == "cuda":
                torch.cuda.synchronize()
            done, tokens, seconds = done + 1, tokens + batch.tokens, time.perf_counter() - begin
            progress.at(TASK, done, 0, "steps")
    progress.end(TASK)
    return seconds / done, tokens / done
