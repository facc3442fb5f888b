"""An estimate of the memory that a training step needs."""

from __future__ import annotations

import torch

from acorn.config import ModelConfig
from acorn.kernels.attention import MAX_UNFUSED_TOKENS
from acorn.kernels.gpu import cuda_parts
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraLinear, LoraSpec
from acorn.model.loss import DEFAULT_PARTS
from acorn.model.sizing import optimizer_bytes, size_of


def training_memory(
    config: ModelConfig,
    optimizer: str,
    micro_batch_size: int,
    activation_bytes: int,
    device: str,
    fused: bool,
    fp16_matmuls: bool = False,
    head: HeadSpec | None = None,
    lora: LoraSpec | None = None,
    frozen: int = 0,
) -> int:
    """Peak bytes of a training step: weights, gradients, optimizer state, activations, a group of logits.

    Args:
        optimizer: "adamw" or "muon".
        micro_batch_size: sequences of one forward.
        activation_bytes: bytes of one activation (2 in bf16 and fp16, 4 in fp32 or if only matmuls are in fp16).
        fused: whether operations between a block's matmuls are compiled or in C, and save less for the backward.
        fp16_matmuls: whether only matmuls are in fp16, on a CPU; attention then saves no weights.
        head: a label head in place of the language model's; it computes in fp32.
        lora: what is trained beside frozen weights, which have neither gradients nor optimizer state.
        frozen: number of first blocks that are not trained, which have neither of them. That they also save no
            activations is left out of account.
    """
    loss = cuda_parts(compiled=False) if device == "cuda" else DEFAULT_PARTS
    size = size_of(config, head, lora, frozen)
    fixed = 4 * size.parameters + 4 * size.trained_parameters + optimizer_bytes(config, optimizer, head, lora, frozen)
    tokens = micro_batch_size * config.block_size
    adds_in_place = device == "cpu" and fused and activation_bytes == 4 and tokens <= loss.group
    if lora is not None:
        # Frozen, the head's gradient is not computed; but with trained rows, a wider copy of the head is.
        fixed += 4 * config.vocab_size * (config.n_embd + len(lora.markup_ids)) if lora.markup_ids else 0
    elif head is None and not adds_in_place:  # the head's gradient of a micro-batch, before it is accumulated
        fixed += 4 * config.vocab_size * config.n_embd
    saved = _SAVED_ACTIVATIONS_FUSED.get(device, _SAVED_ACTIVATIONS) if fused else _SAVED_ACTIVATIONS
    stream, inner, heads, temporary = (_SAVED_ACTIVATIONS_FP16_MATMULS if fp16_matmuls else saved)[config.architecture]
    narrow = inner * config.mlp_hidden + heads * config.heads * config.head_dim
    if config.dropout and config.architecture == "original":
        # Within the MLP: a mask, and the masked activations if they are not in `_SAVED_ACTIVATIONS`.
        narrow += (2 if fp16_matmuls else 1) * config.mlp_hidden
    elif config.dropout and (fp16_matmuls or (device == "cpu" and config.architecture == "modern")):
        narrow += 2 * config.n_embd  # the masks of the outputs of attention and MLP
    per_token = config.n_layer * (4 * stream * config.n_embd + activation_bytes * narrow)
    if not fp16_matmuls:
        weight_bytes = _bytes_per_attention_weight(config, activation_bytes, device)
        per_token += config.n_layer * config.heads * config.block_size * weight_bytes
    if lora is not None:
        per_token += config.n_layer * activation_bytes * _saved_for_lora(config, lora)
    activations = tokens * (per_token + activation_bytes * temporary * config.n_embd)
    if head is not None:  # the activations in fp32, the outputs, and the gradients of both
        return fixed + activations + 8 * tokens * (config.n_embd + head.outputs)
    logits = min(tokens, loss.group) * activation_bytes
    if not (device == "cuda" and fused):  # the compiled kernel on CUDA stores no fp32 logits
        logits += min(tokens, loss.chunk) * 8
    return fixed + activations + logits * config.vocab_size


def _saved_for_lora(config: ModelConfig, lora: LoraSpec) -> int:
    """Elements per token and layer that LoRA's factors save for the backward beyond what the frozen layers do."""
    with torch.device("meta"):
        layers = [m for m in GPT(config, lora=lora).blocks[0].modules() if isinstance(m, LoraLinear)]
    # The input of B before and after its scaling, and with dropout a mask and a masked input of A.
    return sum(2 * lora.rank + (2 * layer.weight.size(1) if lora.dropout else 0) for layer in layers)


def _bytes_per_attention_weight(config: ModelConfig, activation_bytes: int, device: str) -> int:
    """Bytes saved for the backward per attention weight."""
    drops = config.dropout > 0 and config.architecture != "modern"
    if device == "cpu" and drops:
        return 3 * activation_bytes  # the weight, its dropout factor, and their product
    if device == "cpu":
        return activation_bytes if config.block_size <= MAX_UNFUSED_TOKENS else 0
    fused_with_dropout = device == "cuda" and activation_bytes == 2  # that kernel saves no weights
    return 24 if drops and not fused_with_dropout else 0


_SAVED_ACTIVATIONS = {"original": (8, 3, 0, 0), "gpt2": (8, 4, 0, 0), "modern": (16, 4, 0, 80)}
_SAVED_ACTIVATIONS_FUSED = {
    "cpu": _SAVED_ACTIVATIONS | {"modern": (3, 3, 6, 32)},
    "cuda": {"original": (3, 1, 0, 0), "gpt2": (5, 2, 0, 0), "modern": (7, 3, 0, 0)},
}
"""Architecture -> activations per token that a layer saves for the backward, as multiples of widths: of the residual
stream, in fp32 (the stream, its norms and their inputs); of the MLP, in the matmuls' precision (the MLP's activations,
and q, k, v and attention's output if heads are not counted separately); of all heads, in that precision. Last,
temporary tensors during the backward of one layer, in widths of the stream in the matmuls' precision. Fitted to
measured steps."""

_SAVED_ACTIVATIONS_FP16_MATMULS = {"original": (4, 1, 4, 16), "gpt2": (4, 2, 4, 16), "modern": (4, 3, 6, 24)}
"""The same if only matmuls are in fp16. These are the tensors that are stored, as if each query head had its own key
and value head. `_SAVED_ACTIVATIONS` is fitted to measurements instead, because PyTorch's matmuls and attention fragment
the heap by up to half of what they save."""
