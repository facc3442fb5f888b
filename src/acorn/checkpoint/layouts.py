"""acorn's networks in Hugging Face's layouts: GPT-2 (`original`, `gpt2`), Qwen3 and Llama (`modern`, with and without
QK-norm).

Converts names of tensors and the content of config.json in both directions; it does not access files. The layouts
differ in names, and GPT-2 in two more points: its matrices are stored as (in, out), and query, key and value are one
matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from acorn.config import ModelConfig
from acorn.errors import InputError
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec


@dataclass(frozen=True)
class Layout:
    """acorn's module names -> Hugging Face's.

    Attributes:
        outer: modules outside the blocks.
        block: name of the list of blocks.
        inner: modules of a block.
        transposed: modules of `inner` whose matrix is stored as (in, out).
        fixed: keys of config.json with the only value that acorn supports, which is also the default of transformers.
    """

    model_type: str
    architecture: str
    outer: Mapping[str, str]
    block: str
    inner: Mapping[str, str]
    transposed: frozenset[str]
    fixed: Mapping[str, Any]


GPT2 = Layout(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
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
    architecture="Qwen3ForCausalLM",
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
LLAMA = replace(
    QWEN3,
    model_type="llama",
    architecture="LlamaForCausalLM",
    inner={ours: theirs for ours, theirs in QWEN3.inner.items() if not ours.endswith(("q_norm", "k_norm"))},
    fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
)

GPT2_ACTIVATIONS = {
    "relu": "original",
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"), "gpt2"),  # all with tanh
}
"""activation_function -> architecture."""

SYNONYMS = {"hidden_act": {"swish": "silu"}}
"""Key of config.json -> other name of a value -> its usual name."""

UNUSED_ENDINGS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Endings of tensors that older releases of transformers stored although the config determines them."""


def layout_of(config: ModelConfig) -> Layout:
    """The layout of this network in other programs."""
    if config.architecture != "modern":
        return GPT2
    return QWEN3 if config.qk_norm else LLAMA


def to_hugging_face(config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of `GPT(config)` with the names and shapes of its layout."""
    layout = layout_of(config)
    named = _fused(config, weights) if layout is GPT2 else weights
    return {_name(layout, ours): _oriented(layout, ours, tensor) for ours, tensor in named.items()}


def from_hugging_face(config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_hugging_face`. `tensors` are those that `expected_shapes` names.

    Raises:
        InputError: a query, key or value bias is not zero, but the architecture has none.
    """
    layout = layout_of(config)
    ours = meta_parameters(config)
    if layout is not GPT2:
        return {name: tensors[_name(layout, name)] for name in ours}
    fused = {name: _oriented(layout, name, tensors[_name(layout, name)]) for name in _fused(config, ours)}
    return _split(config, fused)


def expected_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Name -> shape of all tensors in the weights file of a model with `config`."""
    return {name: tensor.shape for name, tensor in to_hugging_face(config, meta_parameters(config)).items()}


def meta_parameters(
    config: ModelConfig, head: HeadSpec | None = None, lora: LoraSpec | None = None
) -> dict[str, Tensor]:
    """The parameters of `GPT(config, head=head, lora=lora)` on the meta device: names and shapes, without a tied
    head."""
    with torch.device("meta"):
        return dict(GPT(config, head=head, lora=lora).named_parameters())


def _name(layout: Layout, ours: str) -> str:
    """The name of a parameter in the layout."""
    module, kind = ours.rsplit(".", 1)
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


def to_config_json(config: ModelConfig, special_ids: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json. dtype and rotary base are written under their old and new keys, for all readers.

    Args:
        special_ids: key -> id of the tokens for beginning, end and padding.
    """
    layout = layout_of(config)
    values: dict[str, Any] = {
        **layout.fixed,
        "model_type": layout.model_type,
        "architectures": [layout.architecture],
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.is_tied,
        **special_ids,
        "use_cache": True,
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    if layout is GPT2:
        original = config.architecture == "original"
        return {
            **values,
            "n_layer": config.n_layer,
            "n_head": config.heads,
            "n_embd": config.n_embd,
            "n_positions": config.block_size,
            "n_inner": config.mlp_hidden,
            "layer_norm_epsilon": config.epsilon,
            "activation_function": "relu" if original else "gelu_new",
            "attn_pdrop": config.dropout,
            # The second dropout of original comes after the ReLU, where GPT-2 has none.
            "resid_pdrop": 0.0 if original else config.dropout,
            "embd_pdrop": 0.0 if original else config.dropout,
        }
    return {
        **values,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "hidden_size": config.n_embd,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_hidden,
        "max_position_embeddings": config.block_size,
        "rms_norm_eps": config.epsilon,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_dropout": 0.0,
    }


def from_config_json(values: Mapping[str, Any], where: str) -> ModelConfig:
    """The config of a model folder. Dropout is read from GPT-2's attn_pdrop; the other layouts have no equal field.

    Raises:
        InputError: acorn does not support the network; all unsupported keys are named.
    """
    kind = values.get("model_type")
    layout = next((layout for layout in (GPT2, LLAMA, QWEN3) if layout.model_type == kind), None)
    if layout is None:
        raise InputError(
            f"The model has the type {kind!r}; acorn loads gpt2, llama and qwen3.",
            where=where,
            fix="use it with the transformers library instead",
        )
    fields, faults = _from_gpt2(values) if layout is GPT2 else _from_llama(values, layout)
    config = None
    if not faults:
        try:
            config = ModelConfig.model_validate(fields)
            faults += [] if config.vocab_size else ["vocab_size is 0"]
        except ValidationError as error:
            faults += [f"{'.'.join(map(str, detail['loc'])) or 'config'}: {detail['msg']}" for detail in error.errors()]
    if config is None or faults:
        raise InputError(
            "acorn cannot build this network:\n" + "\n".join(f"  - {fault}" for fault in faults),
            where=where,
            fix="use it with the transformers library instead",
        )
    return _without_derived(config)


def _without_derived(config: ModelConfig) -> ModelConfig:
    """The config without values that follow from the rest, as in the config of a run."""
    derived = {"n_kv_head": 0, "n_inner": 0, "head_width": 0, "norm_eps": 0.0}
    for field, value in derived.items():
        shorter = config.model_copy(update={field: value})
        config = shorter if shorter.spelled_out() == config.spelled_out() else config
    return config


def _from_gpt2(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Fields of acorn's config, and faults: what acorn does not support."""
    faults = _fixed_faults(values, GPT2)
    activation = values.get("activation_function", "gelu_new")
    architecture = GPT2_ACTIVATIONS.get(str(activation))
    if architecture is None:
        faults.append(f"activation_function is {activation!r}; acorn supports {', '.join(GPT2_ACTIVATIONS)}")
    fields = {
        "architecture": architecture,
        "tied": values.get("tie_word_embeddings", True),
        "dropout": values.get("attn_pdrop", 0.1),
        "norm_eps": _above_zero(values, faults, "layer_norm_epsilon", 1e-5),
        "n_inner": values.get("n_inner") or 0,
        **_required(values, faults, "vocab_size", "n_layer", "n_head", "n_embd", block_size="n_positions"),
    }
    return fields, faults


def _from_llama(values: Mapping[str, Any], layout: Layout) -> tuple[dict[str, Any], list[str]]:
    """Fields of acorn's config, and faults: what acorn does not support. Also for Qwen3."""
    faults = _fixed_faults(values, layout)
    layers = values.get("layer_types") or []
    if not isinstance(layers, list) or any(kind != "full_attention" for kind in layers):
        faults.append(f"layer_types is {layers!r}; acorn supports only full_attention")
    fields = {
        "architecture": "modern",
        "qk_norm": layout is QWEN3,
        "tied": values.get("tie_word_embeddings", False),
        "n_kv_head": values.get("num_key_value_heads", 32 if layout is QWEN3 else None) or 0,
        "head_width": values.get("head_dim", 128 if layout is QWEN3 else None) or 0,
        "norm_eps": _above_zero(values, faults, "rms_norm_eps", 1e-6),
        "rope_theta": _rope_theta(values, faults),
        **_required(
            values,
            faults,
            "vocab_size",
            n_layer="num_hidden_layers",
            n_head="num_attention_heads",
            n_embd="hidden_size",
            n_inner="intermediate_size",
            block_size="max_position_embeddings",
        ),
    }
    return fields, faults


def _rope_theta(values: Mapping[str, Any], faults: list[str]) -> Any:
    """The base of the rotary positions. Any other setting of them is a fault.

    The base has its own key, with other settings in `rope_scaling`; newer files have all of them in `rope_parameters`.
    """
    theta = values.get("rope_theta", 10_000.0)
    for key in ("rope_scaling", "rope_parameters"):
        rope = values.get(key) or {}
        others = {**rope} if isinstance(rope, dict) else {"": rope}
        theta = others.pop("rope_theta", theta)
        kind = others.pop("rope_type", others.pop("type", "default"))
        if kind != "default" or any(value != ROPE_DEFAULTS.get(name) for name, value in others.items()):
            faults.append(f"{key} is {rope!r}; acorn supports only the type default, with any rope_theta")
    return theta


ROPE_DEFAULTS = {"type": "default", "partial_rotary_factor": 1.0}


def _above_zero(values: Mapping[str, Any], faults: list[str], key: str, default: float) -> Any:
    """The value of a key for which 0 in acorn's config means the default, so that 0 itself is a fault."""
    if values.get(key, default) == 0:
        faults.append(f"{key} is 0; acorn supports only values above 0")
    return values.get(key, default)


def _fixed_faults(values: Mapping[str, Any], layout: Layout) -> list[str]:
    """Faults for keys that change the network in a way that acorn does not support."""
    fixed = {**layout.fixed, "quantization_config": None, "partial_rotary_factor": 1.0}
    faults = []
    for key, wanted in fixed.items():
        value = values.get(key)
        same = SYNONYMS.get(key, {}).get(value, value) if isinstance(value, str) else value
        if key in values and same != wanted and not (value is None and key == "partial_rotary_factor"):
            faults.append(f"{key} is {value!r}; acorn supports only {wanted!r}")
    return faults


def _required(values: Mapping[str, Any], faults: list[str], *same: str, **renamed: str) -> dict[str, Any]:
    """Field of acorn's config -> the value of its key in config.json; a missing key is a fault."""
    keys = {**{key: key for key in same}, **renamed}
    faults += [f"{key} is missing" for key in keys.values() if key not in values]
    return {field: values[key] for field, key in keys.items() if key in values}
