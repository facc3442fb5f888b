"""The trained tensors of a network with LoRA, under PEFT's names; no files are accessed. `adapter_merge.py` is the
inverse.

In GPT-2's layout query, key and value are one matrix, `c_attn`. Their factors become one pair of n times the rank (n:
how many of the three have factors): A is the three A above each other, and B has the three B on its diagonal, so that
B A is the three products above each other. Alpha is n times as large, too, so that alpha / rank stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acorn.checkpoint.adapter_config import task_type
from acorn.checkpoint.layouts import GPT2, Layout, layout_of, storable_head, stored_name
from acorn.model.gpt import GPT
from acorn.model.lora import LoraLinear, MarkupEmbedding, MarkupHead

PREFIX = "base_model.model."
"""All names of tensors begin with this."""

FACTOR_A, FACTOR_B = ".lora_A.weight", ".lora_B.weight"
EMBEDDING_A, EMBEDDING_B = ".lora_embedding_A", ".lora_embedding_B"
ROWS = ".token_adapter.trainable_tokens_delta"
"""Ending of the names of stored rows. PEFT's name says deltas, but these are whole rows."""

FUSED = "attention.qkv_proj"


@dataclass(frozen=True)
class PeftAdapter:
    """The content of an adapter's two files: `values` of adapter_config.json, and the tensors."""

    values: dict[str, Any]
    tensors: dict[str, Tensor]


def to_peft(model: GPT, base: str = "") -> PeftAdapter:
    """Everything that was trained in a network with LoRA: factors, rows of markup tokens, the label head.

    Args:
        base: `OWNER/NAME` of the base model on the Hub; empty: it is not on the Hub.

    Raises:
        ValueError: the model has no LoRA.
    """
    lora = model.lora
    if lora is None:
        raise ValueError("the model has no LoRA")
    layout = layout_of(model.config)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    targets: list[str] = []
    for module, parts in _groups(model, layout).items():
        with_factors = [part for part in parts if isinstance(part, LoraLinear)]
        name = stored_name(layout, f"{module}.weight").removesuffix(".weight")
        target = layout.inner[module.split(".", 2)[2]]
        targets += [target] if target not in targets else []
        if len(with_factors) > 1:
            ranks[target.rpartition(".")[2]] = len(with_factors) * lora.rank
        tensors[f"{PREFIX}{name}{FACTOR_A}"] = torch.cat([part.lora_a for part in with_factors])
        tensors[f"{PREFIX}{name}{FACTOR_B}"] = _on_diagonal(parts)
    indices: dict[str, list[int]] = {}
    for ours, table in (("token_embedding", model.token_embedding), ("head", model.head)):
        if isinstance(table, MarkupEmbedding | MarkupHead) and not (ours == "head" and model.config.is_tied):
            name = layout.outer[ours]
            tensors[f"{PREFIX}{name}{ROWS}"] = table.merged_weight()[table.ids]
            indices[name.rpartition(".")[2]] = table.ids.tolist()
    saved = []
    if model.score is not None:
        head, score = storable_head(
            model.head_spec, {name: value for name, value in model.named_parameters() if name.startswith("score.")}
        )
        stored = {stored_name(layout, ours, head): value for ours, value in score.items()}
        tensors |= {PREFIX + name: value for name, value in stored.items()}
        saved = sorted({name.rpartition(".")[0] for name in stored})
    values = {
        "peft_type": "LORA",
        "task_type": task_type(model.head_spec),
        "base_model_name_or_path": base or None,
        "revision": None,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": _whole(lora.alpha),
        "lora_dropout": lora.dropout,
        "target_modules": _shortened(targets),
        "rank_pattern": ranks,
        "alpha_pattern": {name: _whole(rank * lora.scale) for name, rank in ranks.items()},
        "fan_in_fan_out": layout is GPT2,
        "bias": "none",
        "modules_to_save": saved or None,
        "trainable_token_indices": indices or None,
        "init_lora_weights": True,
        "use_dora": False,
        "use_rslora": False,
    }
    return PeftAdapter(values, {name: tensor.detach() for name, tensor in tensors.items()})


def _groups(model: GPT, layout: Layout) -> dict[str, list[torch.nn.Module]]:
    """acorn's name of each module with factors -> its parts: query, key and value if they are one matrix."""
    groups: dict[str, list[torch.nn.Module]] = {}
    for number, block in enumerate(model.blocks):
        for inner in layout.inner:
            names = [f"attention.{letter}_proj" for letter in "qkv"] if inner == FUSED else [inner]
            parts = [part for name in names if (part := _submodule(block, name)) is not None]
            if any(isinstance(part, LoraLinear) for part in parts):
                groups[f"blocks.{number}.{inner}"] = parts
    return groups


def _submodule(block: torch.nn.Module, name: str) -> torch.nn.Module | None:
    outer, _, inner = name.partition(".")
    module = getattr(block, outer)
    return getattr(module, inner) if inner else module


def _on_diagonal(parts: Sequence[torch.nn.Module]) -> Tensor:
    """The B of all parts as a block diagonal matrix; zeros for parts without factors."""
    factors = [part.lora_b if isinstance(part, LoraLinear) else None for part in parts]
    weights = [part.get_parameter("weight") for part in parts]
    empty = [weight.new_zeros(len(weight), 0) if b is None else b for weight, b in zip(weights, factors, strict=True)]
    return torch.block_diag(*empty)


def _shortened(targets: Sequence[str]) -> list[str]:
    """The last parts of the names, as other programs write them; with the part before if two would be the same."""
    last = [target.rpartition(".")[2] for target in targets]
    both = {name for name in last if name in DOUBLE and last.count(name) == 1}
    return sorted({target if name in both else name for target, name in zip(targets, last, strict=True)})


DOUBLE = frozenset({"c_proj"})
"""Last parts of names that two modules of a block have."""


def _whole(value: float) -> float | int:
    """The number as an integer if it is whole, as PEFT writes alpha."""
    return int(value) if value == int(value) else value
