"""What a run will take, checked before its first step."""

from __future__ import annotations

from pathlib import Path

from acorn.config import Config
from acorn.errors import ResourceError
from acorn.files import free_bytes
from acorn.model.sizing import ADAMW_BYTES, MUON_BYTES, size_of, training_memory
from acorn.runtime.device import Runtime

SLOWEST_SENSIBLE = 50e9
"""FLOP/s of fp32 on two modest cores, to tell a run of seconds from one of hours before anything is measured."""


def expected_seconds(config: Config) -> float:
    """Roughly how long the run will be: the minutes given, or its FLOPs on a modest CPU."""
    if config.train.minutes:
        return 60 * config.train.minutes
    tokens = config.train.steps * config.train.batch_size * config.model.block_size
    return tokens * size_of(config.model).flops_per_token / SLOWEST_SENSIBLE


def check_memory(config: Config, runtime: Runtime, available: int | None) -> None:
    """Refuses a run that cannot fit. On a CPU the kernel would otherwise kill it without a word.

    Raises:
        ResourceError: with the setting to lower, and to what.
    """
    width = 4 if runtime.precision == "fp32" else 2

    def needed(micro_batch_size: int) -> int:
        return training_memory(config.model, config.optimizer.name, micro_batch_size, width)

    now = config.train.micro_batch_size
    if available is None or needed(now) <= available:
        return
    smaller = next((n for n in range(now - 1, 0, -1) if needed(n) <= available), None)
    if smaller:
        advice = f"set train.micro_batch_size={smaller} (the same result, in more passes)"
    else:
        advice = "lower model.n_layer, model.n_embd, model.block_size or tokenizer.vocab_size: one sequence is too much"
    raise ResourceError(
        f"A training step would need about {needed(now) / 1e9:.1f} GB of memory; {available / 1e9:.1f} GB are available.",
        where=f"train.micro_batch_size = {now} on {runtime.device}",
        mend=advice,
    )


def check_disk(config: Config, out: Path) -> None:
    """Refuses a run whose checkpoints will not fit on the disk.

    Raises:
        ResourceError: with the bytes needed and free.
    """
    state = ADAMW_BYTES if config.optimizer.name == "adamw" else MUON_BYTES
    parameters = size_of(config.model).parameters
    # Kept ones, the best one, one being written, and final/ twice while it is replaced.
    needed = parameters * ((config.checkpoint.keep + 2) * (4 + state) + 2 * 4)
    free = free_bytes(out)
    if needed > free:
        raise ResourceError(
            f"The run's checkpoints would take {needed:,} bytes; {free:,} are free.",
            where=str(out),
            mend="free some space, name a folder on another disk with --out, or lower checkpoint.keep",
        )
