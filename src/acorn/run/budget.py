"""Memory and disk space that a run needs, checked before its first step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from acorn.checkpoint.training_state import Counters
from acorn.config import Config
from acorn.errors import ResourceError
from acorn.files import free_bytes
from acorn.kernels.attention_fp16 import attention_workspace
from acorn.kernels.cpu import is_fused
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec
from acorn.model.sizing import optimizer_bytes, size_of
from acorn.runtime.address_space import address_space_left, is_out_of_memory
from acorn.runtime.device import Runtime
from acorn.train.step_memory import training_memory

LIBRARY_BYTES, COMPILER_BYTES = 20 * 2**20, 130 * 2**20
"""Memory for what PyTorch loads and sets up in its first step, and for its compiler."""


@dataclass(frozen=True)
class StepShape:
    """What a step computes, beside what the config says.

    Attributes:
        context: tokens of the longest sequence; 0: model.block_size.
        head: a label head in place of the language model's.
        lora: what is trained beside frozen weights.
        frozen: number of first blocks that are not trained.
    """

    context: int = 0
    head: HeadSpec | None = None
    lora: LoraSpec | None = None
    frozen: int = 0


WINDOWS = StepShape()
"""The shape of pretraining: all weights are trained on windows of block_size tokens."""


def step_memory(config: Config, runtime: Runtime, micro_batch_size: int, shape: StepShape = WINDOWS) -> int:
    """Peak memory in bytes of a step of `config`, whose model.vocab_size is set, on `runtime`."""
    model = config.model
    if shape.context:
        model = model.model_copy(update={"block_size": shape.context})
    workspace = attention_workspace(model.block_size, model.head_dim, runtime.threads) if runtime.fp16_matmuls else 0
    return workspace + training_memory(
        model,
        config.optimizer.name,
        micro_batch_size,
        runtime.dtype.itemsize,
        runtime.device,
        is_fused(runtime),
        fp16_matmuls=runtime.fp16_matmuls,
        head=shape.head,
        lora=shape.lora,
        frozen=shape.frozen,
    )


def check_memory(config: Config, runtime: Runtime, available: int | None, shape: StepShape = WINDOWS) -> None:
    """Refuses a run that does not fit in memory. On a CPU, the kernel would otherwise kill it without a message.

    Raises:
        ResourceError: names the setting to lower, and a value that fits.
    """
    now = config.train.micro_batch_size
    needed = step_memory(config, runtime, now, shape)
    if available is None or needed <= available:
        return
    smaller = next((n for n in range(now - 1, 0, -1) if step_memory(config, runtime, n, shape) <= available), None)
    if smaller:
        advice = f"set train.micro_batch_size={smaller} (same result, in more micro-batches)"
    else:
        advice = (
            "lower model.n_layer, model.n_embd, model.block_size or tokenizer.vocab_size: one sequence is too large"
        )
    if runtime.device == "cpu" and (left := address_space_left()) is not None and left <= available:
        advice = f"raise the address space limit (ulimit -v unlimited), or {advice}"
    raise ResourceError(
        f"A training step would need about {needed / 1e9:.1f} GB of memory; {available / 1e9:.1f} GB are available.",
        where=f"train.micro_batch_size = {now} on {runtime.device}",
        fix=advice,
    )


def check_disk(config: Config, out: Path) -> None:
    """Refuses a run whose checkpoints do not fit on the disk.

    Raises:
        ResourceError: says how many bytes are needed and how many are free.
    """
    needed, free = disk_needed(config, out), free_bytes(out)
    if needed > free:
        raise ResourceError(
            f"The run's checkpoints need {needed:,} more bytes; only {free:,} are free.",
            where=str(out),
            fix="free disk space, choose a folder on another disk with --out, or lower checkpoint.keep",
        )


def disk_needed(config: Config, out: Path) -> int:
    """Bytes that the checkpoints and the final model of the run in `out` need in addition to what is already there."""
    weights = 4 * size_of(config.model).parameters
    checkpoint = weights + optimizer_bytes(config.model, config.optimizer.name)
    # The kept checkpoints, the best one, one being written, and two copies of final/ while it is replaced.
    needed = (config.checkpoint.keep + 2) * checkpoint + 2 * weights
    folders = [out / "final", *(out / "checkpoints").glob("*")]
    there = sum(file.stat().st_size for folder in folders for file in folder.glob("*.safetensors"))
    return max(0, needed - there)


@contextlib.contextmanager
def memory_errors(config: Config, counters: Counters) -> Iterator[None]:
    """Turns an out-of-memory error inside the block into a ResourceError that names the setting to lower.

    Args:
        counters: of the run; they advance inside the block.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        size = config.train.micro_batch_size
        advice = f"start a new run with train.micro_batch_size={size // 2}, or " if size > 1 else ""
        after = f"after step {counters.step:,}; the last checkpoint is intact" if counters.step else "in the first step"
        raise ResourceError(
            f"Out of memory {after}.",
            where=f"train.micro_batch_size = {size} on {config.train.device}",
            fix=f"{advice}lower model.block_size, or free memory for this program",
        ) from None
