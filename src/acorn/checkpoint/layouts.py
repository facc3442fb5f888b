"""acorn's networks as Hugging Face knows them: GPT-2 (for `seed` and `gpt2`) and Qwen3 (for `modern`).

Names of tensors and the content of config.json, in both directions; nothing here touches a file. The modules differ
in name only, but for two things in GPT-2: its matrices are stored as (in, out), and query, key and value are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from acorn.config import ModelConfig
from acorn.errors import InputError
from acorn.model.gpt import GPT, NORM_EPS, ROPE_THETA


@dataclass(frozen=True)
class Layout:
    """Our modules -> theirs.

    Attributes:
        outer: modules that stand once.
        block: where the blocks stand.
        inner: modules of a block.
        transposed: of these, the ones whose matrix is stored as (in, out).
        fixed: keys of config.json that have one value here, which is also what transformers takes when they are absent.
    """

    architecture: str
    outer: Mapping[str, str]
    block: str
    inner: Mapping[str, str]
    transposed: frozenset[str]
    fixed: Mapping[str, Any]


GPT2 = Layout(
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
        "layer_norm_epsilon": NORM_EPS["gpt2"],
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    },
)
QWEN3 = Layout(
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
    fixed={
        "rms_norm_eps": NORM_EPS["modern"],
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
    },
)
LAYOUTS = {"seed": GPT2, "gpt2": GPT2, "modern": QWEN3}
FOREIGN = ("quantization_config", "rope_scaling", "partial_rotary_factor")
"""Keys of config.json that change the network in a way that no config here does, unless they are null."""

GPT2_ACTIVATIONS = {"relu": "seed", "gelu_new": "gpt2", "gelu_pytorch_tanh": "gpt2"}
"""activation_function -> architecture."""


def to_hugging_face(config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of `GPT(config)` under the layout's names and in its shapes."""
    layout = LAYOUTS[config.architecture]
    named = _fused(config, weights) if layout is GPT2 else weights
    return {_name(layout, ours): _turned(layout, ours, tensor) for ours, tensor in named.items()}


def from_hugging_face(config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round. `tensors` are those that `expected_shapes` names.

    Raises:
        InputError: a query, key or value bias is not zero where the architecture has none.
    """
    layout = LAYOUTS[config.architecture]
    ours = meta_parameters(config)
    if layout is not GPT2:
        return {name: tensors[_name(layout, name)] for name in ours}
    fused = {name: _turned(layout, name, tensors[_name(layout, name)]) for name in _fused(config, ours)}
    return _split(config, fused)


def expected_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Every tensor that the layout's weights file holds for `config`."""
    return {name: tensor.shape for name, tensor in to_hugging_face(config, meta_parameters(config)).items()}


def meta_parameters(config: ModelConfig) -> dict[str, Tensor]:
    """The parameters of `GPT(config)` without memory: names, shapes, a tied head left out."""
    with torch.device("meta"):
        return dict(GPT(config).named_parameters())


def _name(layout: Layout, ours: str) -> str:
    """Name of one of our parameters in the layout."""
    module, kind = ours.rsplit(".", 1)
    if not module.startswith("blocks."):
        return f"{layout.outer[module]}.{kind}"
    _, number, inner = module.split(".", 2)
    return f"{layout.block}.{number}.{layout.inner[inner]}.{kind}"


def _turned(layout: Layout, ours: str, tensor: Tensor) -> Tensor:
    """The tensor in the other side's orientation: (out, in) <-> (in, out) where GPT-2 differs."""
    inner = ours.split(".", 2)[-1].removesuffix(".weight")
    return tensor.T if ours.startswith("blocks.") and inner in layout.transposed else tensor


def _fused(config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of each block as one matrix (3 C, C) and one bias (3 C), zeros for `seed`."""
    fused = dict(weights)
    for number in range(config.n_layer):
        attention = f"blocks.{number}.attention"
        parts = [fused.pop(f"{attention}.{letter}_proj.weight") for letter in "qkv"]
        fused[f"{attention}.qkv_proj.weight"] = torch.cat(parts)
        if config.architecture == "seed":
            bias = parts[0].new_zeros(3 * config.n_embd)
        else:
            bias = torch.cat([fused.pop(f"{attention}.{letter}_proj.bias") for letter in "qkv"])
        fused[f"{attention}.qkv_proj.bias"] = bias
    return fused


def _split(config: ModelConfig, fused: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undoes `_fused`."""
    weights = dict(fused)
    for number in range(config.n_layer):
        attention = f"blocks.{number}.attention"
        for kind in ("weight", "bias"):
            value = weights.pop(f"{attention}.qkv_proj.{kind}")
            if config.architecture == "seed" and kind == "bias":
                if value.any():
                    raise InputError(
                        "The model has a query, key or value bias; acorn's seed architecture (ReLU) has none.",
                        where=f"{GPT2.block}.{number}.attn.c_attn.bias",
                        mend="use it with the transformers library instead",
                    )
                continue
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                weights[f"{attention}.{letter}_proj.{kind}"] = part
    return weights


def to_config_json(config: ModelConfig, *, separator_id: int, pad_id: int) -> dict[str, Any]:
    """The content of config.json. dtype and rotary base stand in the old and the new form, for either reader."""
    layout = LAYOUTS[config.architecture]
    values: dict[str, Any] = {
        **layout.fixed,
        "architectures": [layout.architecture],
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.is_tied,
        "bos_token_id": separator_id,
        "eos_token_id": separator_id,
        "pad_token_id": pad_id,
        "use_cache": True,
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    if layout is GPT2:
        seed = config.architecture == "seed"
        return {
            **values,
            "model_type": "gpt2",
            "n_layer": config.n_layer,
            "n_head": config.heads,
            "n_embd": config.n_embd,
            "n_positions": config.block_size,
            "n_inner": config.mlp_hidden,
            "activation_function": "relu" if seed else "gelu_new",
            "attn_pdrop": config.dropout,
            # The seed's second dropout stands after the ReLU, where GPT-2 has none.
            "resid_pdrop": 0.0 if seed else config.dropout,
            "embd_pdrop": 0.0 if seed else config.dropout,
        }
    return {
        **values,
        "model_type": "qwen3",
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "hidden_size": config.n_embd,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_hidden,
        "max_position_embeddings": config.block_size,
        "rope_theta": ROPE_THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "attention_dropout": 0.0,
    }


def from_config_json(values: Mapping[str, Any], where: str) -> ModelConfig:
    """The config of a model folder. Dropout is what GPT-2 says of its attention; Qwen3 has no field for ours.

    Raises:
        InputError: acorn has no such network; every key in the way is named.
    """
    readers = {"gpt2": _from_gpt2, "qwen3": _from_qwen3}
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in readers:
        raise InputError(
            f"The model is of the type {kind!r}; acorn reads {' and '.join(readers)}.",
            where=where,
            mend="use it with the transformers library instead",
        )
    fields, faults = readers[kind](values)
    config = None
    if not faults:
        try:
            config = ModelConfig.model_validate(fields)
            faults += _width_faults(values, config)
            faults += [] if config.vocab_size else ["vocab_size is 0"]
        except ValidationError as error:
            faults += [f"{'.'.join(map(str, detail['loc'])) or 'config'}: {detail['msg']}" for detail in error.errors()]
    if config is None or faults:
        raise InputError(
            "acorn cannot build this network:\n" + "\n".join(f"  - {fault}" for fault in faults),
            where=where,
            mend="use it with the transformers library instead",
        )
    return config


def _from_gpt2(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Fields of our config, and what stands in the way."""
    faults = _fixed_faults(values, GPT2)
    activation = values.get("activation_function", "gelu_new")
    architecture = GPT2_ACTIVATIONS.get(str(activation))
    if architecture is None:
        faults.append(f"activation_function is {activation!r}; acorn has {', '.join(GPT2_ACTIVATIONS)}")
    fields = {
        "architecture": architecture,
        "tied": values.get("tie_word_embeddings", True),
        "dropout": values.get("attn_pdrop", 0.1),
        **_required(values, faults, "vocab_size", "n_layer", "n_head", "n_embd", block_size="n_positions"),
    }
    return fields, faults


def _from_qwen3(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Fields of our config, and what stands in the way."""
    faults = _fixed_faults(values, QWEN3)
    rope = {"rope_type": "default", "rope_theta": values.get("rope_theta", ROPE_THETA)}
    stated = values.get("rope_parameters") or {}
    rope.update(stated if isinstance(stated, dict) else {"rope_parameters": stated})
    if rope != {"rope_type": "default", "rope_theta": ROPE_THETA}:
        faults.append(f"the rotary positions are {rope}; acorn has the default kind with rope_theta {ROPE_THETA:g}")
    layers = values.get("layer_types") or []
    if not isinstance(layers, list) or any(kind != "full_attention" for kind in layers):
        faults.append(f"layer_types is {layers!r}; acorn has full_attention alone")
    fields = {
        "architecture": "modern",
        "tied": values.get("tie_word_embeddings", False),
        **_required(
            values,
            faults,
            "vocab_size",
            n_layer="num_hidden_layers",
            n_head="num_attention_heads",
            n_embd="hidden_size",
            block_size="max_position_embeddings",
        ),
    }
    groups = values.get("num_key_value_heads")
    return {**fields, "n_kv_head": 0 if groups in (None, fields.get("n_head")) else groups}, faults


def _fixed_faults(values: Mapping[str, Any], layout: Layout) -> list[str]:
    fixed = {**layout.fixed, **dict.fromkeys(FOREIGN)}
    return [
        f"{key} is {values[key]!r}; acorn has {wanted!r}"
        for key, wanted in fixed.items()
        if key in values and values[key] != wanted
    ]


def _required(values: Mapping[str, Any], faults: list[str], *same: str, **renamed: str) -> dict[str, Any]:
    """Our field -> the value of its key; a key that is not there is a fault."""
    keys = {**{key: key for key in same}, **renamed}
    faults += [f"{key} is missing" for key in keys.values() if key not in values]
    return {field: values[key] for field, key in keys.items() if key in values}


def _width_faults(values: Mapping[str, Any], config: ModelConfig) -> list[str]:
    """Widths that acorn derives from n_embd and n_head, where the folder has others."""
    if config.architecture == "modern":
        widths = {
            "head_dim": (values.get("head_dim", 128), config.head_dim),
            "intermediate_size": (values.get("intermediate_size"), config.mlp_hidden),
        }
    else:
        widths = {"n_inner": (values.get("n_inner") or config.mlp_hidden, config.mlp_hidden)}
    return [f"{key} is {has!r}; acorn has {wants}" for key, (has, wants) in widths.items() if has != wants]
