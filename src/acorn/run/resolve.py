"""Every setting that a training run leaves open to this machine, decided here: what `auto` and 0 come to, and why.

Whoever is about to train, or to plan it, calls `resolve`. What follows from the config alone is a property of it
(heads, peak rate, `Config.chosen_init`). Device, and the precision that hardware has, are chosen in runtime/choose.py,
as for commands that only read a model; on a CPU the precision of a run is measured here.
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
from acorn.run.budget import check_disk, check_memory, step_memory
from acorn.run.matmul_timing import matmul_on, seconds_of
from acorn.run.start import check_vocab_size
from acorn.runtime.choose import choose_device, choose_precision
from acorn.runtime.device import Choice, Precision, Runtime, multiplies_bf16, usable_cores
from acorn.runtime.memory import available_memory

UNDECIDED: dict[str, object] = {
    "train.device": "auto",
    "train.precision": "auto",
    "train.compile": "auto",
    "train.micro_batch_size": 0,
    "train.threads": 0,
    "parallel.strategy": "auto",
    "model.vocab_size": 0,
}
"""Values that leave a choice open; a run that goes on keeps the choice it made."""

COMPILE_SECONDS = 30
"""What torch.compile costs before the first step with nothing in its cache: 24 on two fast cores, less beside a GPU."""

COMPILED_GAIN = {"fp32": 0.2, "bf16": 0.3, "fp16": 0.3}
"""How much faster compiled steps are, at least (docs/performance.md; fp16 is taken to be like bf16).

Matrix products take most of a step, and no compiler makes them faster.
"""

WORTH_ROUNDING = {"bf16": 1.3, "fp16": 1.2}
"""How much faster products have to be on a CPU for `auto` to take them. bf16's conversions cost some of it again;
those of fp16 are part of a product. Seen on CPUs that have them: 0.5 and 7; 1.3 to 1.7."""

SAFE_SHARE = 0.8
"""Share of the free memory that a step may take where its size is chosen. Measured, steps took up to 25 % more than
`training_memory` tells (docs/lab-notebook.md), those of one layer; the rest of the program is small beside it."""

SLOWEST_SENSIBLE = 50e9
"""FLOP/s of fp32 on two modest cores, to tell a run of seconds from one of hours before anything is measured."""


def resolve(config: Config, out: Path, vocab_size: int, train_tokens: int | None) -> tuple[Config, Runtime]:
    """The config with every choice made, and the runtime it asks for. Refuses what cannot fit this machine.

    Args:
        out: the run folder, whether it is there or not.
        vocab_size: entries of the tokenizer.
        train_tokens: of the training text; None: not known, as in a plan.

    Raises:
        UsageError: another vocabulary size is set, or the device is unavailable.
        InputError: the text is shorter than a window.
        ResourceError: memory or disk is too small.
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
            "train.micro_batch_size": choose_micro_batch_size(config, runtime, available),
            "parallel.strategy": "single",
        },
    )
    check_memory(config, runtime, available)
    check_disk(config, out)
    return config, runtime


def with_choices_of(earlier: Config, config: Config) -> Config:
    """`config` with the choices that a run made (`earlier`) where it leaves them open itself."""
    chosen, given = flatten(earlier), flatten(config)
    return with_values(config, {key: chosen[key] for key, value in UNDECIDED.items() if given[key] == value})


def open_again(*keys: str) -> list[str]:
    """Overrides that leave the choices of `keys` open; without any, those of all settings."""
    return [f"{key}={UNDECIDED[key]}" for key in keys or UNDECIDED]


def choose_runtime(train: TrainConfig, expected_seconds: float | None = None) -> Runtime:
    """What `train` asks for, with every `auto` decided for this machine.

    Args:
        expected_seconds: how long the run will be, if that is known; decides whether compiling pays.

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
    return Choice("threads", usable_cores(), False, "one for each core this process may use")


def _choose_precision(device: str, train: TrainConfig, threads: int) -> tuple[Choice[Precision], bool]:
    """The precision of matmuls, and whether a network here can have those in fp16 of tensors in fp32."""
    is_wanted = train.precision in ("auto", "fp16")
    lacking = _why_no_fp16_matmuls(device, train.compile is True) if is_wanted else "not asked for"
    if device == "cpu" and train.precision == "auto":
        return _fastest_on_a_cpu(threads, multiplies_bf16(device), lacking), lacking is None
    return choose_precision(device, train.precision, lacking), lacking is None


def _fastest_on_a_cpu(threads: int, has_bf16: bool, lacking: str | None) -> Choice[Precision]:
    """bf16 where that is worth its rounding, else fp16 where that is, else fp32. No CPU was seen to be fast at both."""
    tried = []
    candidates: list[tuple[Precision, bool]] = [("bf16", has_bf16), ("fp16", lacking is None)]
    for precision, there in candidates:
        if there:
            speedup = speedup_of(precision, threads)
            tried.append(f"{precision} products are {speedup:.1f} times as fast as fp32 ones here")
            if speedup >= WORTH_ROUNDING[precision]:
                return Choice("precision", precision, False, tried[-1])
    if not has_bf16:
        tried.append("no bf16 products in this hardware")
    if lacking:
        tried.append(f"fp16: {lacking}")
    return Choice("precision", "fp32", False, ", ".join(tried))


def _why_no_fp16_matmuls(device: str, compiled: bool) -> str | None:
    """Why a network cannot have its products in fp16 of tensors in fp32; None: it can."""
    if device != "cpu":
        return "they are for CPUs"
    if compiled:
        return "a network that is compiled has PyTorch's products"
    library = fp16_library()
    return library.reason if isinstance(library, Unavailable) else None


def _choose_compile(
    device: str, wanted: str | bool, precision: Precision, expected_seconds: float | None
) -> Choice[bool]:
    if isinstance(wanted, bool):
        return Choice("compile", wanted, True)
    if device == "mps":
        return Choice("compile", False, False, "not on this device")
    if device == "cpu":  # what stands between products is in C (kernels/block.py)
        return Choice("compile", False, False, "not on a CPU, unless asked for")
    gain = COMPILED_GAIN[precision]
    if expected_seconds is not None and expected_seconds * gain / (1 + gain) <= COMPILE_SECONDS:
        reason = f"the run is too short to earn {COMPILE_SECONDS} s of compiling back"
        return Choice("compile", False, False, reason)
    return Choice("compile", True, False, "the run is long enough to earn compiling back")


def _estimated_seconds(config: Config) -> float:
    """Roughly how long the run will be: the minutes given, or its FLOPs on a modest CPU."""
    if config.train.minutes:
        return 60 * config.train.minutes
    tokens = config.train.steps * config.train.batch_size * config.model.block_size
    return tokens * size_of(config.model).flops_per_token / SLOWEST_SENSIBLE


def choose_micro_batch_size(config: Config, runtime: Runtime, available: int | None) -> int:
    """Sequences of a pass: as set, the batch at the most; else the batch's largest divisor whose step fits.

    Args:
        available: bytes of free memory; None: not known.
    """
    train = config.train
    if train.micro_batch_size:
        return min(train.micro_batch_size, train.batch_size)
    if available is None:
        return train.batch_size
    divisors = (n for n in range(train.batch_size, 0, -1) if train.batch_size % n == 0)
    return next((n for n in divisors if step_memory(config, runtime, n) <= SAFE_SHARE * available), 1)


def speedup_of(precision: Precision, threads: int) -> float:
    """How many times as fast as fp32 the CPU multiplies in bf16 or fp16, measured in a tenth of a second.

    That it has instructions for it does not say: AVX512-BF16 halves the rate on some (docs/lab-notebook.md).
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
