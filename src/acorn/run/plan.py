"""What a run will need on this machine, and what would stop it from starting, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acorn.checkpoint.load import LoadedModel
from acorn.config import Config
from acorn.data.prepare import check_room
from acorn.data.sample_order import SampleOrder
from acorn.data.token_shards import DTYPES, dtype_for
from acorn.errors import ResourceError
from acorn.model.sizing import optimizer_bytes, size_of
from acorn.progress import QUIET, Progress
from acorn.run.budget import COMPILER_BYTES, LIBRARY_BYTES, step_memory
from acorn.run.calibration import seconds_per_step
from acorn.run.initial_model import load_initial_model
from acorn.run.resolve import resolve
from acorn.run.start import (
    check_config,
    check_fits,
    check_is_pretraining,
    check_launch,
    check_length,
    check_machine,
    check_name,
)
from acorn.run.text_estimate import TextEstimate, estimate_text
from acorn.run_folder import RunFolder
from acorn.runtime.address_space import is_out_of_memory
from acorn.runtime.memory import available_memory, resident_memory


def plan_run(config: Config, out: Path | None = None, progress: Progress = QUIET) -> dict[str, Any]:
    """Parameters, memory, tokens and time of a run on this machine. Part of the text is read, nothing is written.

    The time is estimated from a few steps of one- and two-layer networks, measured now. It covers the steps alone,
    without validation, samples and saves. Sizes are in bytes, `minutes` in minutes.

    Args:
        config: need not name a text; then what depends on the text is None.
        out: the folder of the run, which must have enough disk space; None: runs/<name>.

    Raises:
        AcornError: what `pretrain` would raise, as far as the beginning of the text and its file sizes show it.
    """
    process = resident_memory()  # of Python and PyTorch alone
    run = RunFolder(out or Path("runs") / config.name)
    check_name(run)
    if config.data.source or config.data.shards:
        check_config(config)
    else:
        check_is_pretraining(config)
        check_length(config)
        check_launch()
    check_machine(config)
    initial: LoadedModel | None = None
    if config.train.init_from:
        config, initial = load_initial_model(config, progress)
    check_fits(config, run, initial)
    tokenizer = initial.tokenizer if initial else None
    del initial  # frees its weights, which would count as used memory
    text = estimate_text(config, run, tokenizer, progress)
    config, runtime = resolve(config, run.root, text.vocab_size, text.train_tokens)
    if text.train_tokens is not None and not config.data.shards:
        check_room(run.data, "train", text.train_tokens * DTYPES[dtype_for(text.vocab_size)].itemsize)
    available = available_memory(runtime.device)
    model, train = config.model, config.train
    batch_tokens = train.batch_size * model.block_size
    try:
        speed = batch_tokens / seconds_per_step(config, runtime, train.micro_batch_size, progress)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            "Out of memory while timing a step of one or two layers.",
            where=f"{runtime.device}, {available or 0:,} bytes free before",
            fix="lower model.n_embd, model.block_size or tokenizer.vocab_size, or free memory for this program",
        ) from None
    size = size_of(model)
    steps = train.steps or int(60 * train.minutes * speed / batch_tokens)
    return {
        "name": config.name,
        "architecture": model.architecture,
        "parameters": size.parameters,
        "vocab_size": text.vocab_size,
        "flops_per_token": size.flops_per_token,
        "device": runtime.device,
        "precision": runtime.precision,
        "compile": runtime.compile,
        "threads": runtime.threads,
        "micro_batch_size": train.micro_batch_size,
        "memory_bytes": step_memory(config, runtime, train.micro_batch_size)
        + (process + LIBRARY_BYTES + COMPILER_BYTES * runtime.compile if runtime.device == "cpu" else 0),
        "memory_available_bytes": available,
        "text": text.known,
        "train_bytes": text.train_bytes,
        "train_tokens": text.train_tokens,
        "tokens_per_step": batch_tokens,
        "steps": steps,
        "tokens": steps * batch_tokens,
        "epochs": _epochs(config, text, steps),
        "tokens_per_second": speed,
        "minutes": train.minutes or steps * batch_tokens / speed / 60,
        "checkpoint_bytes": 4 * size.parameters + optimizer_bytes(model, config.optimizer.name),
    }


def _epochs(config: Config, text: TextEstimate, steps: int) -> float | None:
    """Epochs over the training text, counted as in metrics.jsonl; None: the text's size is unknown."""
    if text.train_tokens is None:
        return None
    order = SampleOrder(text.train_tokens, config.model.block_size, config.train.seed)
    return steps * config.train.batch_size / order.n_windows
