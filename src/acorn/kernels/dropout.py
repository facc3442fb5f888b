"""Dropout for CPUs, with a quarter of the random numbers that PyTorch's draws (docs/lab-notebook.md)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

N_RANDOM_VALUES = 65_536
"""Random numbers have 16 bits, so that the probability is within 1 / 131,072 of p."""


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero with probability p, else x / (1 - p), for each element independently (Srivastava et al. 2014).

    The result depends on PyTorch's random state. Four elements share the 64 bits of one random number; PyTorch draws
    one for each. 1 / (1 - p) is rounded to x's type, as in PyTorch.
    """
    if not p:
        return x
    if torch.compiler.is_compiling():
        return F.dropout(x, p)
    random = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    values = random.view(torch.int16)[: x.numel()].view(x.shape)
    kept = values >= min(round(N_RANDOM_VALUES * p), N_RANDOM_VALUES - 1) - N_RANDOM_VALUES // 2
    return x * kept.to(x.dtype).mul_(1 / (1 - p))
