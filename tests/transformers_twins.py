"""acorn's networks in transformers' classes, by a mapping of names written out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from acorn.config import ModelConfig


def gpt2_config(config: ModelConfig, **more: Any) -> transformers.GPT2Config:
    return transformers.GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.block_size,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.heads,
        activation_function="relu" if config.architecture == "original" else "gelu_new",
        tie_word_embeddings=config.is_tied,
        **more,
    )


def qwen3_config(config: ModelConfig, kind: Any = transformers.Qwen3Config, **more: Any) -> Any:
    """`kind`: Qwen3Config, or LlamaConfig for a network without QK-norm."""
    return kind(
        vocab_size=config.vocab_size,
        hidden_size=config.n_embd,
        intermediate_size=config.mlp_hidden,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.epsilon,
        max_position_embeddings=config.block_size,
        tie_word_embeddings=config.is_tied,
        **more,
    )


@torch.no_grad()
def load_gpt2(theirs: Any, ours: Mapping[str, Tensor]) -> Any:
    """Copies the weights `ours` into a GPT-2 of transformers, with whatever head, and returns it in eval mode."""
    C = ours["token_embedding.weight"].size(1)
    theirs.transformer.wte.weight.copy_(ours["token_embedding.weight"])
    theirs.transformer.wpe.weight.copy_(ours["position_embedding.weight"])
    theirs.transformer.ln_f.load_state_dict({k: ours[f"final_norm.{k}"] for k in ("weight", "bias")})
    for name, head in (("lm_head", "head"), ("score", "score"), ("classifier", "score")):
        if hasattr(theirs, name):
            kinds = [kind for kind in ("weight", "bias") if f"{head}.{kind}" in ours]
            getattr(theirs, name).load_state_dict({kind: ours[f"{head}.{kind}"] for kind in kinds})
    for number, block in enumerate(theirs.transformer.h):
        at = f"blocks.{number}."
        block.ln_1.load_state_dict({k: ours[f"{at}attention_norm.{k}"] for k in ("weight", "bias")})
        block.ln_2.load_state_dict({k: ours[f"{at}mlp_norm.{k}"] for k in ("weight", "bias")})
        for number_of_part, part in enumerate(("q_proj", "k_proj", "v_proj")):
            columns = slice(number_of_part * C, (number_of_part + 1) * C)
            block.attn.c_attn.weight[:, columns] = ours[f"{at}attention.{part}.weight"].T
            block.attn.c_attn.bias[columns] = ours.get(f"{at}attention.{part}.bias", torch.zeros(C))
        for module, name in ((block.attn.c_proj, "attention.o_proj"), (block.mlp.c_fc, "mlp.up_proj")):
            module.weight.copy_(ours[f"{at}{name}.weight"].T)
            module.bias.copy_(ours[f"{at}{name}.bias"])
        block.mlp.c_proj.weight.copy_(ours[f"{at}mlp.down_proj.weight"].T)
        block.mlp.c_proj.bias.copy_(ours[f"{at}mlp.down_proj.bias"])
    return theirs.eval()


def load_modern(theirs: Any, ours: Mapping[str, Tensor]) -> Any:
    """Loads the weights `ours` into a Qwen3 or Llama of transformers, with whatever head, in eval mode."""
    renamed = {}
    for name, tensor in ours.items():
        for here, there in (
            ("token_embedding", "model.embed_tokens"),
            ("final_norm", "model.norm"),
            ("attention_norm", "input_layernorm"),
            ("mlp_norm", "post_attention_layernorm"),
            ("blocks.", "model.layers."),
            (".attention.", ".self_attn."),
        ):
            name = name.replace(here, there)
        renamed["lm_head.weight" if name == "head.weight" else name] = tensor
    theirs.load_state_dict(renamed, strict=True)
    return theirs.eval()
