"""A look inside: what the model would say after each layer, and which tokens each head attends to.

The logit lens (nostalgebraist 2020): the residual stream after each block goes through the final norm and the head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from acorn.checkpoint.load import LoadedModel
from acorn.model.gpt import GPT, Block
from acorn.model.ops import attention, rotary_tables
from acorn.runtime.device import Runtime
from acorn.serve.inspect import Task, log_probabilities
from acorn.serve.token_text import TokenTexts


def lens_of(loaded: LoadedModel, ids: Sequence[int], runtime: Runtime, top: int) -> Task[dict[str, Any]]:
    """For each layer: the most likely next tokens after each position, and the attention of each head.

    Args:
        ids: at most as many as fit in the context. The answer grows with their square.
    """
    model, pieces = loaded.model, TokenTexts(loaded.tokenizer)
    layers = []
    with torch.inference_mode(), runtime.autocast():
        x, rotation = _embedded(model, ids)
    for block in model.blocks:
        yield
        assert isinstance(block, Block)
        with torch.inference_mode(), runtime.autocast():
            x, weights = _block(block, x, rotation)
            following = log_probabilities(model.logits(model.final_norm(x))[0].float())
            best = following.topk(min(top, following.size(-1)))
        layers.append(
            {
                "next": [
                    [[token, pieces.text(token), value] for token, value in zip(found, values, strict=True)]
                    for found, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                ],
                # To three digits, which is more than an eye sees: (H, T, T) is most of the answer.
                "attention": [[[round(w, 3) for w in row] for row in head] for head in weights.tolist()],
            }
        )
    return {"tokens": [{"id": token, "piece": pieces.text(token)} for token in ids], "layers": layers}


def _embedded(model: GPT, ids: Sequence[int]) -> tuple[Tensor, Any]:
    """What the first block reads (1, T, C), and the tables of rotary positions, if the model has them."""
    positions = torch.arange(len(ids), device=model.device)
    x = model.token_embedding(torch.tensor([ids], device=model.device))
    if model.position_embedding is not None:
        return x + model.position_embedding(positions), None
    return x, rotary_tables(positions, model.head_dim, model.config.rope_theta)


def _block(block: Block, x: Tensor, rotation: Any) -> tuple[Tensor, Tensor]:
    """The residual stream after the block, and its attention weights (H, T, T)."""
    seen: list[Tensor] = []

    def watched(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
        seen.append(attention_weights(q, k)[0])
        return attention(q, k, v, mask, dropout_p)

    layer = block.attention
    ops = layer.ops
    layer.ops = dataclasses.replace(ops, attention=watched)
    try:
        return block(x, rotation, None, None), seen[0]
    finally:
        layer.ops = ops


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) over the tokens up to each one: (B, H, T, T), from q (B, H, T, D) and k (B, K, T, D)."""
    k = k.repeat_interleave(q.size(1) // k.size(1), dim=1)
    scores = (q.float() @ k.float().transpose(-1, -2)) / q.size(-1) ** 0.5
    future = torch.ones(q.size(2), q.size(2), dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1)
