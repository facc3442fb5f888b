"""acorn's networks in Hugging Face's layouts: GPT-2 (`original`, `gpt2`), Qwen3 and Llama (`modern`, with and without
QK-norm), as language models and as classifiers.

Converts names of tensors in both directions; it does not access files. `config_json.py` converts configs. The layouts
differ in names, and GPT-2 in two more points: its matrices are stored as (in, out), and query, key and value are one
matrix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acorn.checkpoint.label_config import Reader, reader_of
from acorn.config import ModelConfig
from acorn.errors import InputError
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec


@dataclass(frozen=True)
class Layout:
    """acorn's module names -> Hugging Face's.

    Attributes:
        prefix: beginning of the names of the classes, as in `GPT2LMHeadModel`.
        language_model: ending of the name of the class of language models.
        tagger_head: name of the label head of a tagger.
        outer: modules outside the blocks.
        block: name of the list of blocks.
        inner: modules of a block.
        transposed: modules of `inner` whose matrix is stored as (in, out).
        fixed: keys of config.json with the only value that acorn supports, which is also the default of transformers.
    """

    model_type: str
    prefix: str
    language_model: str
    tagger_head: str
    outer: Mapping[str, str]
    block: str
    inner: Mapping[str, str]
    transposed: frozenset[str]
    fixed: Mapping[str, Any]

    def class_of(self, head: HeadSpec | None) -> str:
        """The class of a model with this label head; None: of a language model."""
        return self.prefix + (self.language_model if head is None else CLASSIFIERS[reader_of(head)])

    @property
    def readers(self) -> dict[str, Reader | None]:
        """Class of a model -> what its label head reads; None: a language model. A bare trunk counts as one."""
        models: dict[str, Reader | None] = {self.prefix + self.language_model: None, f"{self.prefix}Model": None}
        return {**models, **{self.prefix + ending: reader for reader, ending in CLASSIFIERS.items()}}


CLASSIFIERS: dict[Reader, str] = {"sequence": "ForSequenceClassification", "token": "ForTokenClassification"}
"""What a label head reads -> ending of the name of the class."""

GPT2 = Layout(
    model_type="gpt2",
    prefix="GPT2",
    language_model="LMHeadModel",
    tagger_head="classifier",
    outer={
        "token_embedding": "transformer.wte",
        "position_embedding": "transformer.wpe",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
    },
    block="transformer.h",
    inner={
        "attention_norm": "ln_1",
        "attention.qkv_proj": "attn.c_attn",
        "attention.o_proj": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp.up_proj": "mlp.c_fc",
        "mlp.down_proj": "mlp.c_proj",
    },
    transposed=frozenset({"attention.qkv_proj", "attention.o_proj", "mlp.up_proj", "mlp.down_proj"}),
    fixed={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    },
)
QWEN3 = Layout(
    model_type="qwen3",
    prefix="Qwen3",
    language_model="ForCausalLM",
    tagger_head="score",
    outer={"token_embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"},
    block="model.layers",
    inner={
        "attention_norm": "input_layernorm",
        "attention.q_proj": "self_attn.q_proj",
        "attention.k_proj": "self_attn.k_proj",
        "attention.v_proj": "self_attn.v_proj",
        "attention.o_proj": "self_attn.o_proj",
        "attention.q_norm": "self_attn.q_norm",
        "attention.k_norm": "self_attn.k_norm",
        "mlp_norm": "post_attention_layernorm",
        "mlp.gate_proj": "mlp.gate_proj",
        "mlp.up_proj": "mlp.up_proj",
        "mlp.down_proj": "mlp.down_proj",
    },
    transposed=frozenset(),
    fixed={"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False},
)
LLAMA = dataclasses.replace(
    QWEN3,
    model_type="llama",
    prefix="Llama",
    inner={ours: theirs for ours, theirs in QWEN3.inner.items() if not ours.endswith(("q_norm", "k_norm"))},
    fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
)

UNUSED_ENDINGS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Endings of tensors that older releases of transformers stored although the config determines them."""


def layout_of(config: ModelConfig) -> Layout:
    """The layout of this network in other programs."""
    if config.architecture != "modern":
        return GPT2
    return QWEN3 if config.qk_norm else LLAMA


def to_hugging_face(
    config: ModelConfig, weights: Mapping[str, Tensor], head: HeadSpec | None = None
) -> dict[str, Tensor]:
    """The parameters of `GPT(config, head=head)` with the names and shapes of its layout."""
    layout = layout_of(config)
    named = _fused(config, weights) if layout is GPT2 else weights
    return {stored_name(layout, ours, head): _oriented(layout, ours, tensor) for ours, tensor in named.items()}


def from_hugging_face(
    config: ModelConfig, tensors: Mapping[str, Tensor], head: HeadSpec | None = None
) -> dict[str, Tensor]:
    """The inverse of `to_hugging_face`. `tensors` are those that `expected_shapes` names.

    Raises:
        InputError: a query, key or value bias is not zero, but the architecture has none.
    """
    layout = layout_of(config)
    ours = meta_parameters(config, head)
    if layout is not GPT2:
        return {name: tensors[stored_name(layout, name, head)] for name in ours}
    fused = {name: _oriented(layout, name, tensors[stored_name(layout, name, head)]) for name in _fused(config, ours)}
    return _split(config, fused)


def expected_shapes(config: ModelConfig, head: HeadSpec | None = None) -> dict[str, torch.Size]:
    """Name -> shape of all tensors in the weights file of a model with `config` and `head`."""
    stored = to_hugging_face(config, meta_parameters(config, head), head)
    return {name: tensor.shape for name, tensor in stored.items()}


def storable_head(head: HeadSpec | None, weights: Mapping[str, Tensor]) -> tuple[HeadSpec | None, dict[str, Tensor]]:
    """The label head and all weights as a model folder stores them: taggers have a bias there, if need be of zeros.

    Class weights, which only training uses, are left out.

    Raises:
        ValueError: a head that reads sequences has a bias, which these layouts lack.
    """
    if head is None:
        return None, dict(weights)
    if head.kind != "tag":
        if head.bias:
            raise ValueError("heads that read sequences are stored without a bias")
        return dataclasses.replace(head, class_weights=()), dict(weights)
    bias = {} if head.bias else {"score.bias": weights["score.weight"].new_zeros(head.outputs)}
    return dataclasses.replace(head, class_weights=(), bias=True), {**weights, **bias}


def meta_parameters(
    config: ModelConfig, head: HeadSpec | None = None, lora: LoraSpec | None = None
) -> dict[str, Tensor]:
    """The parameters of `GPT(config, head=head, lora=lora)` on the meta device: names and shapes, without a tied
    head."""
    with torch.device("meta"):
        return dict(GPT(config, head=head, lora=lora).named_parameters())


def stored_name(layout: Layout, ours: str, head: HeadSpec | None = None) -> str:
    """The name of a parameter in the layout."""
    module, kind = ours.rsplit(".", 1)
    if module == "score":
        return f"{layout.tagger_head if head is not None and head.kind == 'tag' else 'score'}.{kind}"
    if not module.startswith("blocks."):
        return f"{layout.outer[module]}.{kind}"
    _, number, inner = module.split(".", 2)
    return f"{layout.block}.{number}.{layout.inner[inner]}.{kind}"


def _oriented(layout: Layout, ours: str, tensor: Tensor) -> Tensor:
    """The tensor, transposed (out, in) <-> (in, out) where GPT-2 stores it so."""
    inner = ours.split(".", 2)[-1].removesuffix(".weight")
    return tensor.T if ours.startswith("blocks.") and inner in layout.transposed else tensor


def _fused(config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of each block as one matrix (3 C, C) and one bias (3 C), zeros for `original`."""
    fused = dict(weights)
    for number in range(config.n_layer):
        attention = f"blocks.{number}.attention"
        parts = [fused.pop(f"{attention}.{letter}_proj.weight") for letter in "qkv"]
        fused[f"{attention}.qkv_proj.weight"] = torch.cat(parts)
        if config.architecture == "original":
            bias = parts[0].new_zeros(3 * config.n_embd)
        else:
            bias = torch.cat([fused.pop(f"{attention}.{letter}_proj.bias") for letter in "qkv"])
        fused[f"{attention}.qkv_proj.bias"] = bias
    return fused


def _split(config: ModelConfig, fused: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `_fused`."""
    weights = dict(fused)
    for number in range(config.n_layer):
        attention = f"blocks.{number}.attention"
        for kind in ("weight", "bias"):
            value = weights.pop(f"{attention}.qkv_proj.{kind}")
            if config.architecture == "original" and kind == "bias":
                if value.any():
                    raise InputError(
                        "The model has a query, key or value bias, but acorn's architecture original (ReLU) has none.",
                        where=f"{GPT2.block}.{number}.attn.c_attn.bias",
                        fix="use it with the transformers library instead",
                    )
                continue
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                weights[f"{attention}.{letter}_proj.{kind}"] = part
    return weights
