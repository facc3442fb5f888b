"""Weight-only int8 quantization: integers from -127 to 127, with one scale per row.

Weights take a quarter of fp32's memory, which speeds up decoding, where memory bandwidth is the limit. Source: Dettmers
et al. 2022 (LLM.int8(), without its outlier columns).
"""

from __future__ import annotations

import torch
from torch import Tensor

from acorn.model.gpt import GPT
from acorn.model.layers import Linear
from acorn.model.lm_head import Head


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (N, K) -> (int8 (N, K), scales (N,) in fp32). int8 * scale is within scale / 2 of the weight."""
    scales = weight.float().abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight.float() / scales[:, None]).round().to(torch.int8), scales


@torch.no_grad()
def round_to_int8(model: GPT) -> None:
    """Rounds the weights of all matmuls to their int8 values, in place.

    The model then computes what int8 weights would give. Calling it again changes nothing. The token embedding is not
    rounded unless it is tied to the head: a token reads only one row of it.
    """
    for module in model.modules():
        if isinstance(module, Linear | Head):
            integers, scales = quantize_rows(module.merged_weight())
            module.replace_weight(integers * scales[:, None])
