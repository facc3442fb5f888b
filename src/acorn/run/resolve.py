"""Resolves every setting that a training run leaves open (`auto` or 0) for this machine, and says why.

Training and planning call `resolve`. What follows from the config alone is a property of the config (heads, peak
learning rate, `Config.chosen_init`). Device and the hardware's precision are chosen in runtime/choose.py, which also
serves commands that only read a model. On a CPU, the precision of a run is chosen here, by measuring.
"""

from __future__ import annotations

from pathlib import Path

import torch

from acorn.config import Config, TrainConfig
from acorn.config_files import flatten, with_values
from acorn.data.sample_order import SampleOrder
from acorn.kernels.build import Unavailable
from acorn.kernels.matmul import fp16_library
from acorn.model.sizing import size_of
from acorn.run.budget import WINDOWS, StepShape, check_disk, check_memory, step_memory
from acorn.run.matmul_timing import matmul_on, seconds_of
from acorn.run.start import check_vocab_size
from acorn.runtime.choose import choose_device, choose_precision
from acorn.runtime.device import Choice, Precision, Runtime, multiplies_bf16, usable_cores
from acorn.runtime.memory import available_memory

OPEN_VALUES: dict[str, object] = {
    "train.device": "auto",
    "train.precision": "auto",
    "train.compile": "auto",
    "train.micro_batch_size": 0,
    "train.threads": 0,
    "parallel.strategy": "auto",
    "model.vocab_size": 0,
}
"""Key -> the value that leaves the choice to acorn. A resumed run keeps the choices it made."""

OPEN_VALUES_OF_FINETUNING: dict[str, object] = {
    "finetune.task": "auto",
    "finetune.labels": (),
    "finetune.overlong": "auto",
    "optimizer.lr": 0.0,
}
"""The same for choices of a finetuning run that depend on its rows and its model, not on the machine."""

COMPILE_SECONDS = 30
"""What torch.compile takes before the first step if its cache is empty; an upper estimate."""

COMPILED_GAIN = {"fp32": 0.2, "bf16": 0.3, "fp16": 0.3}
"""Precision -> how much faster compiled steps are at least; 0.2 is 1.2x (docs/benchmarks.md; fp16 is assumed equal to
bf16). Matmuls take most of a step, and compilation does not make them faster."""

MIN_SPEEDUP = {"bf16": 1.3, "fp16": 1.2}
"""Matmul speed relative to fp32 from which `auto` chooses a precision on a CPU. bf16's conversions cost some of the
gain; those of fp16 are part of the matmul. Measured CPUs reached 0.5 or 7 in bf16, and 1.3 to 1.7 in fp16."""

MAX_MEMORY_SHARE = 0.8
"""Share of free memory that a step may take if acorn chooses the micro-batch. One-layer steps took up to 25 % more than
`training_memory` estimates (docs/lab-notebook.md); the rest of the program takes little in comparison."""

SLOW_CPU_FLOPS = 50e9
"""FLOP/s in fp32 on two slow cores, to tell a run of seconds from one of hours before anything is measured."""


def resolve(
    config: Config, out: Path, vocab_size: int, train_tokens: int | None, shape: StepShape = WINDOWS
) -> tuple[Config, Runtime]:
    """The config with every choice made, and its runtime. Refuses what does not fit this machine.

    Args:
        out: the run folder; it need not exist.
        vocab_size: of the tokenizer.
        train_tokens: tokens of the training text; None: unknown, which happens in plans, or there is no text.
        shape: what a step computes; by default windows of a text.

    Raises:
        UsageError: another vocabulary size is set, or the device is unavailable.
        InputError: the text is shorter than a window.
        ResourceError: there is too little memory or disk space.
    """
    check_vocab_size(config, vocab_size, vocab_size)
    if train_tokens is not None:
        SampleOrder(train_tokens, config.model.block_size, config.train.seed)  # refuses too little text
    config = with_values(config, {"model.vocab_size": vocab_size})
    runtime = choose_runtime(config.train, _estimated_seconds(config))
    available = available_memory(runtime.device)
    config = with_values(
        config,
        {
            "train.init": config.chosen_init,
            "train.device": runtime.device,
            "train.precision": runtime.precision,
            "train.compile": runtime.compile,
            "train.threads": runtime.threads,
            "train.micro_batch_size": choose_micro_batch_size(config, runtime, available, shape),
            "parallel.strategy": "single",
        },
    )
    check_memory(config, runtime, available, shape)
    check_disk(config, out)
    return config, runtime


def with_choices_of(earlier: Config, config: Config) -> Config:
    """`config` with the choices of `earlier`, the config of a run, for what it leaves open itself."""
    chosen, given = flatten(earlier), flatten(config)
    open_values = OPEN_VALUES | ({} if earlier.trains_on_text else OPEN_VALUES_OF_FINETUNING)
    is_open = {key for key, value in open_values.items() if given[key] == value}
    if given["finetune.epochs"] and given["finetune.epochs"] == chosen["finetune.epochs"]:
        is_open.add("train.steps")  # computed from the epochs
    return with_values(config, {key: chosen[key] for key in flatten(config) if key in is_open})


def open_again(*keys: str) -> list[str]:
    """Overrides that leave the choice of `keys` to acorn again; without keys, all those for the machine."""
    return [f"{key}={OPEN_VALUES[key]}" for key in keys or OPEN_VALUES]


def choose_runtime(train: TrainConfig, expected_seconds: float | None = None) -> Runtime:
    """The runtime that `train` asks for, with every `auto` resolved for this machine.

    Args:
        expected_seconds: length of the run, if known; decides whether compilation pays off.

    Raises:
        UsageError: the device asked for is unavailable here.
    """
    device = choose_device(train.device)
    threads = _choose_threads(train.threads)
    precision, has_fp16_matmuls = _choose_precision(device.value, train, threads.value)
    compiled = _choose_compile(device.value, train.compile, precision.value, expected_seconds)
    return Runtime(
        device.value,
        precision.value,
        compiled.value,
        threads.value,
        train.deterministic,
        (device, precision, compiled, threads),
        precision.value == "fp16" and has_fp16_matmuls,
    )


def _choose_threads(wanted: int) -> Choice[int]:
    if wanted:
        return Choice("threads", wanted, True)
    return Choice("threads", usable_cores(), False, "one per core that this process may use")


def _choose_precision(device: str, train: TrainConfig, threads: int) -> tuple[Choice[Precision], bool]:
    """The precision of matmuls, and whether fp16 matmuls of fp32 tensors are available here."""
    is_wanted = train.precision in ("auto", "fp16")
    lacking = _why_no_fp16_matmuls(device, train.compile is True) if is_wanted else "not asked for"
    if device == "cpu" and train.precision == "auto":
        return _fastest_on_a_cpu(threads, multiplies_bf16(device), lacking), lacking is None
    return choose_precision(device, train.precision, lacking), lacking is None


def _fastest_on_a_cpu(threads: int, has_bf16: bool, lacking: str | None) -> Choice[Precision]:
    """bf16 if it is fast enough, else fp16 if that is, else fp32. No CPU is known to be fast at both."""
    tried = []
    candidates: list[tuple[Precision, bool]] = [("bf16", has_bf16), ("fp16", lacking is None)]
    for precision, there in candidates:
        if there:
            speedup = speedup_of(precision, threads)
            tried.append(f"{precision} matmuls are {speedup:.1f}x as fast as fp32 here")
            if speedup >= MIN_SPEEDUP[precision]:
                return Choice("precision", precision, False, tried[-1])
    if not has_bf16:
        tried.append("the hardware has no bf16 matmuls")
    if lacking:
        tried.append(f"fp16: {lacking}")
    return Choice("precision", "fp32", False, ", ".join(tried))


def _why_no_fp16_matmuls(device: str, compiled: bool) -> str | None:
    """Why fp16 matmuls of fp32 tensors are unavailable; None: they are available."""
    if device != "cpu":
        return "they exist on CPUs only"
    if compiled:
        return "a compiled network uses PyTorch's matmuls"
    library = fp16_library()
    return library.reason if isinstance(library, Unavailable) else None


def _choose_compile(
    device: str, wanted: str | bool, precision: Precision, expected_seconds: float | None
) -> Choice[bool]:
    if isinstance(wanted, bool):
        return Choice("compile", wanted, True)
    if device == "mps":
        return Choice("compile", False, False, "not on this device")
    if device == "cpu":  # acorn's C code fuses what is between matmuls (kernels/block.py)
        return Choice("compile", False, False, "not on a CPU, unless asked for")
    gain = COMPILED_GAIN[precision]
    if expected_seconds is not None and expected_seconds * gain / (1 + gain) <= COMPILE_SECONDS:
        reason = f"the run is too short to amortize {COMPILE_SECONDS} s of compilation"
        return Choice("compile", False, False, reason)
    return Choice("compile", True, False, "the run is long enough to amortize compilation")


def _estimated_seconds(config: Config) -> float:
    """Rough length of the run: the minutes given, or its FLOPs on a slow CPU."""
    if config.train.minutes:
        return 60 * config.train.minutes
    tokens = config.train.steps * config.train.batch_size * config.model.block_size
    return tokens * size_of(config.model).flops_per_token / SLOW_CPU_FLOPS


def choose_micro_batch_size(config: Config, runtime: Runtime, available: int | None, shape: StepShape = WINDOWS) -> int:
    """Sequences per micro-batch: as set, at most the batch; else the largest divisor of the batch that fits in memory.

    Args:
        available: bytes of free memory; None: unknown.
    """
    train = config.train
    if train.micro_batch_size:
        return min(train.micro_batch_size, train.batch_size)
    if available is None:
        return train.batch_size
    divisors = (n for n in range(train.batch_size, 0, -1) if train.batch_size % n == 0)
    return next((n for n in divisors if step_memory(config, runtime, n, shape) <= MAX_MEMORY_SHARE * available), 1)


def speedup_of(precision: Precision, threads: int) -> float:
    """Matmul speed of bf16 or fp16 relative to fp32 on this CPU, measured in a fraction of a second.

    That a CPU has the instructions is not enough: AVX512-BF16 halves the speed of some (docs/lab-notebook.md).
    """
    n = 1024 if threads <= 8 else 2048
    fp32 = matmul_on(Runtime("cpu", "fp32", False, threads, True), n)
    other = matmul_on(Runtime("cpu", precision, False, threads, True, fp16_matmuls=precision == "fp16"), n)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pairs = [(seconds_of("cpu", fp32), seconds_of("cpu", other)) for _ in range(5)]
    finally:
        torch.set_num_threads(before)
    return min(seconds for seconds, _ in pairs) / min(seconds for _, seconds in pairs)
