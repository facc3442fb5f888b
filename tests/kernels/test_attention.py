"""Written-out attention equals PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from acorn.config import ModelConfig
from acorn.kernels.attention import MAX_UNFUSED_TOKENS, QUERY_BLOCK, attention_weights, causal_attention
from acorn.kernels.choose import training_ops
from acorn.model.gpt import GPT
from acorn.runtime.device import Runtime


@pytest.mark.parametrize("length", [1, 5, QUERY_BLOCK - 1, QUERY_BLOCK, QUERY_BLOCK + 1, 2 * QUERY_BLOCK + 3])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_output_and_gradients_equal_the_fused_kernel(length: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(length)
    q, k, v = (
        torch.randn(2, heads, length, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, kv_heads, kv_heads)
    )
    cotangent = torch.randn(2, 4, length, 8, generator=generator, dtype=torch.float64)
    results = []
    for attention in (
        lambda *qkv: causal_attention(attention_weights, *qkv),
        lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=True, enable_gqa=True),
    ):
        y = attention(q, k, v)
        results.append((y, *torch.autograd.grad(y, (q, k, v), cotangent)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("length", [16, MAX_UNFUSED_TOKENS + 1])
def test_training_and_evaluation_give_equal_logits(length: int) -> None:
    """Training uses written-out attention up to MAX_UNFUSED_TOKENS tokens, evaluation the fused kernel."""
    ops = training_ops(Runtime("cpu", "fp32", False, 1, True), in_place_gradients=True)
    model = GPT(ModelConfig(n_layer=1, n_embd=16, n_head=2, vocab_size=11, block_size=length), ops)
    model.init_weights(0)
    with torch.no_grad():
        model.blocks[0].attention.o_proj.weight.normal_()
    ids = torch.randint(11, (2, length))
    training = model(ids)
    with torch.no_grad():
        evaluating = model(ids)
    torch.testing.assert_close(training, evaluating, rtol=0, atol=1e-5)
