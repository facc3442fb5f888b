"""Memory that a training step takes, told before it is taken."""

from __future__ import annotations

from acorn.config import ModelConfig
from acorn.kernels.attention import MAX_UNFUSED_TOKENS
from acorn.kernels.gpu import cuda_parts
from acorn.model.loss import DEFAULT_PARTS
from acorn.model.sizing import optimizer_bytes, size_of


def training_memory(
    config: ModelConfig,
    optimizer: str,
    micro_batch_size: int,
    activation_bytes: int,
    device: str,
    fused: bool,
    fp16_products: bool = False,
) -> int:
    """Bytes that a training step needs at its peak: weights, gradients, optimizer, activations, a chunk of logits.

    Args:
        optimizer: "adamw" or "muon".
        micro_batch_size: sequences of one forward pass.
        activation_bytes: bytes of one activation (2 in bf16 and fp16, 4 in fp32 and where only products are in fp16).
        fused: what stands between a block's products is compiled or in C, and keeps less for the backward pass.
        fp16_products: products alone are in fp16, on a CPU; attention then keeps no weights.
    """
    loss = cuda_parts(compiled=False) if device == "cuda" else DEFAULT_PARTS
    fixed = size_of(config).parameters * (4 + 4) + optimizer_bytes(config, optimizer)
    tokens = micro_batch_size * config.block_size
    adds_in_place = device == "cpu" and fused and activation_bytes == 4 and tokens <= loss.group
    if not adds_in_place:  # the head's gradient of a pass, beside that which it is added to
        fixed += 4 * config.vocab_size * config.n_embd
    kept = _SAVED_ACTIVATIONS_FUSED.get(device, _SAVED_ACTIVATIONS) if fused else _SAVED_ACTIVATIONS
    stream, inner, heads, passing = (_SAVED_ACTIVATIONS_FP16_MATMULS if fp16_products else kept)[config.architecture]
    narrow = inner * config.mlp_hidden + heads * config.heads * config.head_dim
    if config.dropout and config.architecture == "original":
        # Within the MLP: a mask, and what it leaves if not in `_SAVED_ACTIVATIONS`.
        narrow += (2 if fp16_products else 1) * config.mlp_hidden
    elif config.dropout and (fp16_products or (device == "cpu" and config.architecture == "modern")):
        narrow += 2 * config.n_embd  # the masks of what attention and the MLP give
    per_token = config.n_layer * (4 * stream * config.n_embd + activation_bytes * narrow)
    if not fp16_products:
        of_weight = _bytes_per_attention_weight(config, activation_bytes, device)
        per_token += config.n_layer * config.heads * config.block_size * of_weight
    logits = min(tokens, loss.group) * activation_bytes
    if not (device == "cuda" and fused):  # there the pass over the logits keeps fp32 numbers to itself
        logits += min(tokens, loss.chunk) * 8
    return fixed + tokens * (per_token + activation_bytes * passing * config.n_embd) + logits * config.vocab_size


def _bytes_per_attention_weight(config: ModelConfig, activation_bytes: int, device: str) -> int:
    """Bytes that the backward pass needs for one of attention's weights."""
    drops = config.dropout > 0 and config.architecture != "modern"
    if device == "cpu" and drops:
        return 3 * activation_bytes  # the weight, its factor, their product
    if device == "cpu":
        return activation_bytes if config.block_size <= MAX_UNFUSED_TOKENS else 0
    knows_dropout = device == "cuda" and activation_bytes == 2  # the fused kernel, which keeps no weights
    return 24 if drops and not knows_dropout else 0


_SAVED_ACTIVATIONS = {"original": (8, 3, 0, 0), "gpt2": (8, 4, 0, 0), "modern": (16, 4, 0, 80)}
_SAVED_ACTIVATIONS_FUSED = {
    "cpu": _SAVED_ACTIVATIONS | {"modern": (3, 3, 6, 32)},
    "cuda": {"original": (3, 1, 0, 0), "gpt2": (5, 2, 0, 0), "modern": (7, 3, 0, 0)},
}
"""Architecture -> what a layer keeps of a token for the backward pass: widths of the stream in fp32 (the stream, its
norms and what they are made of); widths of the MLP in the products' precision (what is inside it and, where heads are
not counted apart, q, k, v and attention's output); widths of all heads in that precision; and what comes and goes
while one layer is gone through backwards, in widths of the stream in the products' precision. Counted from what steps
were seen to take."""

_SAVED_ACTIVATIONS_FP16_MATMULS = {"original": (4, 1, 4, 16), "gpt2": (4, 2, 4, 16), "modern": (4, 3, 6, 24)}
"""The same where products alone are in fp16. What a layer keeps is counted as it is stored, as if each head had keys
and values of its own. There is little else, while PyTorch's own products and attention leave holes in the heap of up to
half of what they keep: so `_SAVED_ACTIVATIONS` was fitted to what steps took."""
