"""The content of config.json for acorn's networks, written and read.

Reading is strict: whatever would change the network in a way that acorn does not support is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from acorn.checkpoint.label_config import Reader, from_label_config, to_label_config
from acorn.checkpoint.layouts import GPT2, LLAMA, QWEN3, Layout, layout_of
from acorn.config import ModelConfig
from acorn.errors import InputError, shown
from acorn.model.label_head import HeadSpec

GPT2_ACTIVATIONS = {
    "relu": "original",
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"), "gpt2"),  # all with tanh
}
"""activation_function -> architecture."""

SYNONYMS = {"hidden_act": {"swish": "silu"}}
"""Key of config.json -> other name of a value -> its usual name."""


def to_config_json(
    config: ModelConfig, special_ids: Mapping[str, Any], head: HeadSpec | None = None, labels: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of config.json. dtype and rotary base are written under their old and new keys, for all readers.

    Args:
        special_ids: key -> id of the tokens for beginning, end and padding.
        labels: names of the head's outputs.

    Raises:
        InputError: the labels do not fit the head.
    """
    layout = layout_of(config)
    values: dict[str, Any] = {
        **layout.fixed,
        "model_type": layout.model_type,
        "architectures": [layout.class_of(head)],
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.is_tied,
        **special_ids,
        **({} if head is None else to_label_config(head, labels)),
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


@dataclass(frozen=True)
class StoredConfig:
    """The content of a config.json.

    Attributes:
        head: the label head; None: a language model.
        labels: names of the head's outputs.
    """

    model: ModelConfig
    head: HeadSpec | None = None
    labels: tuple[str, ...] = ()


def from_config_json(values: Mapping[str, Any], where: str) -> StoredConfig:
    """The network in the config.json of a model folder.

    Dropout is read from GPT-2's attn_pdrop; the other layouts have no equal field.

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
    reader = _reader_in(values, layout, faults)
    head, labels = (None, ()) if reader is None else from_label_config(values, reader, faults)
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
    return StoredConfig(_without_derived(config), head, labels)


def _reader_in(values: Mapping[str, Any], layout: Layout, faults: list[str]) -> Reader | None:
    """What the model's label head reads, by its class; None for a language model, or if the class is a fault."""
    classes = values.get("architectures") or []
    known = layout.readers
    if not isinstance(classes, list) or not all(isinstance(name, str) and name in known for name in classes):
        faults.append(f"architectures is {shown(classes)}; acorn supports {', '.join(known)}")
        return None
    readers = {known[name] for name in classes}
    if len(readers) > 1:
        faults.append(f"architectures is {shown(classes)}; acorn supports models with one head")
    return readers.pop() if len(readers) == 1 else None


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
