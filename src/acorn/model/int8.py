"""Matrices in 8 bits: whole numbers of -127..127 and a scale for each row, as weight-only quantization has it.

A quarter of fp32's bytes, and so up to four times the tokens per second where memory sets the pace. Source: Dettmers
et al. 2022 (LLM.int8(), without its outlier columns).
"""

from __future__ import annotations

import torch
from torch import Tensor

from acorn.model.gpt import GPT, Head
from acorn.model.layers import Linear


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (N, K) -> (int8 (N, K), scales (N,) in fp32); their product is within half a scale of the weight."""
    scales = weight.float().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight.float() / scales[:, None]).round().to(torch.int8), scales


@torch.no_grad()
def round_to_int8(model: GPT) -> None:
    """Replaces every matrix that is multiplied with by what int8 keeps of it, in place.

    Whatever computes with the model then gives the numbers that int8 weights give; doing it twice changes nothing
    more. The token table keeps its precision where it is not the head: a token reads one row of it.
    """
    for module in model.modules():
        if isinstance(module, Linear | Head):
            numbers, scales = quantize_rows(module.weight)
            module.weight.copy_(numbers * scales[:, None])
