"""The network, compared with transformers' GPT-2 and Qwen3; and properties that hold for any weights.

The mapping of names is written out by hand in transformers_twins.py, apart from the one that the model folder uses.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import transformers
from torch import Tensor
from transformers_twins import gpt2_config, load_gpt2, load_modern, qwen3_config

from acorn.config import ModelConfig
from acorn.model.gpt import GPT

SHAPES = {
    "original": ModelConfig(
        architecture="original", n_layer=2, n_head=4, n_embd=32, block_size=48, vocab_size=97, tied=False
    ),
    "gpt2": ModelConfig(architecture="gpt2", n_layer=2, n_head=4, n_embd=32, block_size=48, vocab_size=97, tied=True),
    "gpt2-untied": ModelConfig(
        architecture="gpt2", n_layer=2, n_head=4, n_embd=32, block_size=48, vocab_size=97, tied=False
    ),
    "modern-tied": ModelConfig(n_layer=2, n_head=4, n_embd=32, block_size=48, vocab_size=97, tied=True),
    "modern-untied": ModelConfig(n_layer=2, n_head=4, n_embd=32, block_size=48, vocab_size=97, tied=False),
    "modern-gqa": ModelConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, block_size=48, vocab_size=97, tied=False),
    "modern-mqa": ModelConfig(n_layer=2, n_head=4, n_kv_head=1, n_embd=32, block_size=48, vocab_size=97, tied=True),
}
SEED_124M = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024}


def random_model(config: ModelConfig) -> GPT:
    """No parameter keeps a value that would hide a mistake, such as a norm of ones or a projection of zeros."""
    model = GPT(config)
    model.init_weights(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def some_ids(config: ModelConfig, batch: int = 3) -> Tensor:
    return torch.randint(config.vocab_size, (batch, config.block_size), generator=torch.Generator().manual_seed(2))


def of_transformers(model: GPT) -> transformers.PreTrainedModel:
    """The same network as transformers builds it."""
    if model.config.architecture == "modern":
        return load_modern(transformers.Qwen3ForCausalLM(qwen3_config(model.config)), model.state_dict())
    return load_gpt2(transformers.GPT2LMHeadModel(gpt2_config(model.config)), model.state_dict())


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_those_of_transformers(name: str) -> None:
    model = random_model(SHAPES[name])
    theirs = of_transformers(model)
    ids = some_ids(model.config)
    with torch.no_grad():
        ours, reference = model(ids), theirs(ids).logits
    assert reference.std() > 0.3  # else small values could hide an error
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_the_loss_is_the_cross_entropy_of_the_logits(name: str) -> None:
    model = random_model(SHAPES[name])
    ids = some_ids(model.config)
    targets = ids.roll(-1, dims=1)
    targets[:, -1] = -1
    with torch.no_grad():
        total, count = model(ids, targets)
        log_probabilities = model(ids).double().log_softmax(-1)
    expected = -log_probabilities[:, :-1].gather(-1, ids[:, 1:, None]).sum()
    assert count == targets.numel() - targets.size(0)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_a_token_does_not_change_earlier_logits(name: str) -> None:
    model = random_model(SHAPES[name])
    ids = some_ids(model.config, batch=1)
    with torch.no_grad():
        before = model(ids)
        for t in (1, 17, model.config.block_size - 1):
            changed = ids.clone()
            changed[0, t] = (changed[0, t] + 1) % model.config.vocab_size
            after = model(changed)
            assert torch.equal(after[:, :t], before[:, :t])
            assert not torch.equal(after[:, t], before[:, t])


@pytest.mark.parametrize("name", SHAPES)
def test_every_parameter_is_initialized(name: str) -> None:
    with torch.device("meta"):
        model = GPT(SHAPES[name])
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    model.init_weights(0)
    assert [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()] == []


@pytest.mark.parametrize("name", SHAPES)
def test_initial_values_depend_on_seed_and_name_only(name: str) -> None:
    config = SHAPES[name]
    models = [GPT(config), GPT(config), GPT(config.model_copy(update={"n_layer": 3}))]
    torch.manual_seed(99)
    models[0].init_weights(7)
    torch.manual_seed(100)
    for model in models[1:]:
        torch.rand(5)
        model.init_weights(7)
    first, second, deeper = (dict(model.named_parameters()) for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    # gpt2 scales projections into the residual stream with depth; all else is equal in a deeper network.
    same = [name for name in first if config.architecture != "gpt2" or not name.endswith("_proj.weight")]
    assert all(torch.equal(first[name], deeper[name]) for name in same)
    models[1].init_weights(8)
    assert not torch.equal(first["token_embedding.weight"], second["token_embedding.weight"])
    matrices = [name for name in first if name.endswith("proj.weight") and first[name].any()]
    assert not torch.equal(first[matrices[0]], first[matrices[1]])


def test_original_has_pytorchs_default_initial_values() -> None:
    model = GPT(SHAPES["original"].model_copy(update={"n_embd": 256, "vocab_size": 500}))
    model.init_weights(0)
    values = dict(model.named_parameters())
    assert values["token_embedding.weight"].std().item() == pytest.approx(1, rel=0.02)
    for name, fan_in in (
        ("blocks.0.attention.q_proj.weight", 256),
        ("blocks.1.mlp.down_proj.weight", 1024),
        ("blocks.1.mlp.down_proj.bias", 1024),
        ("head.weight", 256),
    ):
        # A uniform distribution within +-b has the standard deviation b / sqrt(3).
        assert values[name].abs().max().item() <= fan_in**-0.5
        assert values[name].std().item() == pytest.approx((fan_in * 3) ** -0.5, rel=0.1)
    assert values["blocks.0.mlp_norm.weight"].eq(1).all()
    assert values["final_norm.bias"].eq(0).all()


def test_blocks_of_modern_begin_as_the_identity() -> None:
    model = GPT(SHAPES["modern-tied"])
    model.init_weights(0)
    model.eval()
    ids = some_ids(model.config)
    embedded = model.token_embedding(ids)
    normed = embedded / (embedded.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(model.hidden(ids), normed)


def test_published_sizes() -> None:
    with torch.device("meta"):
        original = GPT(
            ModelConfig(
                architecture="original", n_layer=6, n_head=8, n_embd=512, block_size=512, vocab_size=28_144, tied=False
            )
        )
        gpt2 = GPT(ModelConfig(architecture="gpt2", vocab_size=50_257, **SEED_124M))
    assert sum(parameter.numel() for parameter in original.parameters()) == 47_987_712
    assert sum(parameter.numel() for parameter in gpt2.parameters()) == 124_439_808


@pytest.mark.parametrize("name", ["original", "gpt2", "modern-gqa"])
def test_dropout_is_active_in_training_only(name: str) -> None:
    plain = random_model(SHAPES[name])
    model = GPT(SHAPES[name].model_copy(update={"dropout": 0.3}))
    model.load_state_dict(plain.state_dict())
    ids = some_ids(model.config)
    with torch.no_grad():
        model.eval()
        assert torch.equal(model(ids), plain(ids))
        model.train()
        assert not torch.equal(model(ids), model(ids))
        plain.train()
        assert torch.equal(plain(ids), plain(ids))


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("original", {"attention weights", "mlp"}),
        ("gpt2", {"embedding", "attention weights", "attention output", "mlp"}),
        ("modern-tied", {"attention output", "mlp"}),
    ],
)
def test_where_each_architecture_has_dropout(name: str, dropped: set[str]) -> None:
    """The original has dropout of attention weights and after the ReLU."""
    model = GPT(SHAPES[name].model_copy(update={"dropout": 0.3}))
    block = model.blocks[0]
    places = {
        "embedding": model.embedding_dropout.p,
        "attention weights": block.attention.weight_dropout,
        "attention output": block.attention.output_dropout.p,
        "mlp": block.mlp.dropout.p,
    }
    assert {place for place, p in places.items() if p} == dropped


def test_more_tokens_than_the_context_are_refused() -> None:
    model = random_model(SHAPES["gpt2"])
    with pytest.raises(ValueError, match="block_size"):
        model(torch.zeros(1, 49, dtype=torch.long))


def test_the_tied_head_is_one_parameter() -> None:
    tied, untied = GPT(SHAPES["modern-tied"]), GPT(SHAPES["modern-untied"])
    assert tied.head.weight is tied.token_embedding.weight
    assert "head.weight" not in dict(tied.named_parameters())
    assert untied.head.weight is not untied.token_embedding.weight


def test_building_on_the_meta_device_does_not_load_the_compiler() -> None:
    """Every command that loads a model builds it on the meta device first, and importing torch._dynamo is slow."""
    script = "import sys, torch\nfrom acorn.config import ModelConfig\nfrom acorn.model.gpt import GPT\n"
    script += "for kind in ('original', 'gpt2', 'modern'):\n    with torch.device('meta'):\n"
    script += "        GPT(ModelConfig(architecture=kind, vocab_size=300))\nprint('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
