"""The limits of this machine: FLOP/s of matmuls with a model's shapes, and memory bandwidth."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acorn.config import ModelConfig
from acorn.kernels.matmul import fp16_matmul
from acorn.runtime.device import Runtime, usable_cores

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PEAK_MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}
"""Device -> size of the square matmul that serves as the machine's peak."""


@dataclass(frozen=True)
class Ceiling:
    """FLOP/s of the matmuls of a training step, without anything between them.

    Attributes:
        peak: FLOP/s of a square matmul of PEAK_MATMUL_SIZE.
        at_shapes: FLOP/s of the model's matmuls, forward and backward.
    """

    peak: float
    at_shapes: float


def machine_facts(device: str) -> dict[str, Any]:
    """Facts about this machine, for the JSON file."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "processor": name,
        "cores": usable_cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }


def _processor() -> str:
    """The processor's name and its vector extensions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return " ".join(
        [name, *(flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16") if flag in flags)]
    )


def read_bandwidth(device: str = "cpu") -> float:
    """Memory bandwidth: bytes per second of a sum over 256 MiB."""
    x = torch.ones(1 << 26, device=device)
    return x.numel() * 4 / shortest(x.sum, 1.0, device)


def ceiling_of(model: ModelConfig, tokens: int, precision: str, device: str = "cpu", seconds: float = 3.0) -> Ceiling:
    """The limits for training `model` with `tokens` tokens per step. The head counts as a single matmul.

    Args:
        precision: fp16 means acorn's own fp16 matmuls of fp32 matrices, for CPUs.
    """
    dtype = DTYPES.get(precision, torch.float32)
    own = precision == "fp16"
    multiply = fp16_matmul(Runtime(device, "fp16", False, usable_cores(), True, fp16_matmuls=own)) or torch.mm
    square = torch.randn(PEAK_MATMUL_SIZE[device], PEAK_MATMUL_SIZE[device], device=device).to(dtype)
    peak = 2 * PEAK_MATMUL_SIZE[device] ** 3 / shortest(lambda: multiply(square, square), seconds / 2, device)
    shapes = matmul_shapes(model)
    flops = spent = 0.0
    for (rows, columns), count in shapes.items():
        x = torch.randn(tokens, columns, device=device).to(dtype)
        weight = torch.randn(rows, columns, device=device).to(dtype)
        grad = torch.randn(tokens, rows, device=device).to(dtype)
        share = seconds / 6 / len(shapes)
        for matmul in (
            lambda x=x, weight=weight: multiply(x, weight.T),
            lambda grad=grad, weight=weight: multiply(grad, weight),
            lambda grad=grad, x=x: multiply(grad.T, x),
        ):
            spent += count * shortest(matmul, share, device)
        flops += count * 6 * tokens * rows * columns
    return Ceiling(peak, flops / spent)


def matmul_shapes(model: ModelConfig) -> dict[tuple[int, int], int]:
    """Shape (rows, columns) of a weight matrix -> number of matrices with this shape."""
    width, hidden = model.n_embd, model.mlp_hidden
    kv = model.kv_heads * model.head_dim
    found: dict[tuple[int, int], int] = {}
    ups = 2 if model.architecture == "modern" else 1
    layer = [(width, width, 2), (kv, width, 2), (hidden, width, ups), (width, hidden, 1)]
    for rows, columns, count in layer:
        found[rows, columns] = found.get((rows, columns), 0) + count * model.n_layer
    found[model.vocab_size, width] = 1
    return found


def shortest(work: Callable[[], object], seconds: float, device: str = "cpu") -> float:
    """Seconds of the fastest of as many repetitions as fit into `seconds` (at least 3)."""
    work()
    best, begin, done = float("inf"), time.perf_counter(), 0
    while done < 3 or time.perf_counter() - begin < seconds:
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best, done = min(best, time.perf_counter() - start), done + 1
    return best
