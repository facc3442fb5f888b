"""Models that other programs made, in all three layouts: their logits are transformers' own, the way back is exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.activations import ACT2FN

from acorn.checkpoint.config_json import GPT2_ACTIVATIONS
from acorn.checkpoint.load import build_model
from acorn.checkpoint.model_folder import read_model_folder, write_model_folder
from acorn.errors import DamageError
from acorn.model.kv_cache import KVCache
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

TEXT = "In winter there were few ships, so the keeper wrote about gulls instead; nobody had asked him to."
TOKENIZER: Tokenizer = train(lambda: [TEXT], "bpe", 290)

LLAMA = {
    "vocab_size": TOKENIZER.vocab_size,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
}
GPT2 = {"vocab_size": TOKENIZER.vocab_size, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64}
MODELS: dict[str, Any] = {
    "gpt2": transformers.GPT2Config(**GPT2),
    "gpt2, other sizes": transformers.GPT2Config(
        **GPT2, n_inner=100, layer_norm_epsilon=1e-3, activation_function="gelu_fast", tie_word_embeddings=False
    ),
    "llama": transformers.LlamaConfig(**LLAMA),
    "llama, tied": transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True, rms_norm_eps=1e-3),
    "llama, grouped": transformers.LlamaConfig(
        **{**LLAMA, "num_key_value_heads": 2}, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    ),
    "llama, wide heads": transformers.LlamaConfig(**LLAMA, head_dim=16),
    "qwen3": transformers.Qwen3Config(**LLAMA, head_dim=12),
    "qwen3, tied": transformers.Qwen3Config(**LLAMA, head_dim=12, tie_word_embeddings=True),
    "qwen3, wide heads, grouped": transformers.Qwen3Config(
        **{**LLAMA, "num_key_value_heads": 1}, rope_parameters={"rope_type": "default", "rope_theta": 1e6}
    ),
}


def made_by_transformers(path: Path, config: Any, **settings: Any) -> Any:
    """A model with random values in all parameters, including norms and biases, saved in the folder `path`."""
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path, **settings)
    TOKENIZER.save(path / "tokenizer.json")
    return model


def some_ids() -> Tensor:
    return torch.randint(TOKENIZER.vocab_size, (2, 64), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_logits_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = made_by_transformers(tmp_path / "model", MODELS[name])
    found = read_model_folder(tmp_path / "model")
    config, weights = found.config, found.weights
    ours, ids = build_model(config, weights, "cpu", torch.float32), some_ids()
    expected = theirs(ids).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-4)

    cache = KVCache(config, 2, 64)
    logits = [ours(ids[:, :40], cache=cache), *(ours(ids[:, n : n + 1], cache=cache) for n in range(40, 64))]
    torch.testing.assert_close(torch.cat(logits, 1), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_conversion_in_both_directions_is_exact(name: str, tmp_path: Path) -> None:
    """Loaded by acorn, written, and loaded by transformers: the same class, sizes and bits."""
    theirs = made_by_transformers(tmp_path / "model", MODELS[name])
    found = read_model_folder(tmp_path / "model")
    config, weights, tokenizer = found.config, found.weights, found.tokenizer
    write_model_folder(tmp_path / "back", build_model(config, weights, "cpu", torch.float32), tokenizer, "card")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert type(back) is type(theirs)
    expected = theirs.state_dict()
    assert expected.keys() == back.state_dict().keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in back.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(back(some_ids()).logits, theirs(some_ids()).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_shards_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    made_by_transformers(tmp_path / "first", MODELS["llama, grouped"]).to(dtype).save_pretrained(
        tmp_path / "model", max_shard_size="40KB"
    )
    TOKENIZER.save(tmp_path / "model" / "tokenizer.json")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 2
    found = read_model_folder(tmp_path / "model")
    config, weights = found.config, found.weights
    with torch.no_grad():
        ours = build_model(config, weights, "cpu", torch.float32)(some_ids())
        torch.testing.assert_close(ours, theirs(some_ids()).logits, rtol=0, atol=1e-4)


def test_names_of_equal_activations_are_accepted() -> None:
    x = torch.linspace(-6, 6, 1001)
    for name in (name for name, architecture in GPT2_ACTIVATIONS.items() if architecture == "gpt2"):
        torch.testing.assert_close(ACT2FN[name](x), torch.nn.functional.gelu(x, approximate="tanh"))


def test_older_spellings_in_config_json_are_read(tmp_path: Path) -> None:
    """rope_theta with a null rope_scaling, rotary angles stored with the weights, and a tied matrix stored twice."""
    made_by_transformers(tmp_path / "model", MODELS["llama, tied"])
    path = tmp_path / "model" / "config.json"
    values = json.loads(path.read_text())
    del values["rope_parameters"], values["head_dim"]
    path.write_text(json.dumps({**values, "rope_theta": 1e5, "rope_scaling": None, "hidden_act": "swish"}))
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    embedding = tensors["model.embed_tokens.weight"]
    angles = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}
    save_file({**tensors, **angles, "lm_head.weight": embedding.clone()}, weights, {"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    found = read_model_folder(tmp_path / "model")
    config, read = found.config, found.weights
    assert config.rope_theta == 1e5
    with torch.no_grad():
        ours = build_model(config, read, "cpu", torch.float32)(some_ids())
        torch.testing.assert_close(ours, theirs(some_ids()).logits, rtol=0, atol=1e-4)

    save_file({**tensors, "lm_head.weight": embedding + 1}, weights)
    with pytest.raises(DamageError, match="differ"):
        read_model_folder(tmp_path / "model")


def test_sizes_of_the_weights_are_checked(tmp_path: Path) -> None:
    made_by_transformers(tmp_path / "model", MODELS["qwen3"])
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 96}))
    with pytest.raises(DamageError, match=r"\[80, 48\], not \[96, 48\]"):
        read_model_folder(tmp_path / "model")
