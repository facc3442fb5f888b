"""AdamW and Muon, compared with PyTorch's; and the parameter groups."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from cpus import needs_fp16

from acorn.config import ModelConfig, OptimizerConfig
from acorn.kernels.build import Unavailable
from acorn.kernels.matmul import Fp16Matmul, fp16_library
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec
from acorn.train.optimizer import AdamW, Muon, build_optimizers, orthogonalize, set_rates

SHAPES = {
    "original": ModelConfig(architecture="original", n_layer=2, n_embd=32, n_head=2, block_size=8, vocab_size=50),
    "gpt2": ModelConfig(architecture="gpt2", n_layer=2, n_embd=32, n_head=2, block_size=8, vocab_size=50),
    "modern": ModelConfig(n_layer=2, n_embd=32, n_head=2, block_size=8, vocab_size=50),
    "untied": ModelConfig(n_layer=2, n_embd=32, n_head=2, block_size=8, vocab_size=50, tied=False),
}


def test_equals_torch_adamw() -> None:
    """Bit-identical, including the state; a parameter without a gradient does not change."""
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in ((16, 48), (7,), (3, 5))]
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimizers = [
        kind([{"params": p[:1], "lr": 0.02, "weight_decay": 0.1}, {"params": p[1:], "lr": 0.01, "weight_decay": 0.0}])
        for kind, p in (
            (lambda groups: AdamW(groups, (0.8, 0.9), 1e-6), ours),
            (lambda groups: torch.optim.AdamW(groups, betas=(0.8, 0.9), eps=1e-6, fused=True), theirs),
        )
    ]
    for step in range(10):
        gradients = [torch.randn_like(value) for value in start]
        for parameters in (ours, theirs):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = None if step % 2 and gradient.ndim == 1 else gradient.clone()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
        states = [optimizer.state[p] for optimizer, p in zip(optimizers, (one, other), strict=True)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert optimizers[0].state[ours[1]]["step"] == 5


def test_torch_compile_is_not_loaded() -> None:
    """PyTorch's own optimizers load it, which takes time and memory."""
    script = "import sys, torch\nfrom acorn.config import ModelConfig, OptimizerConfig\n"
    script += "from acorn.model.gpt import GPT\nfrom acorn.train.optimizer import build_optimizers\n"
    script += "model = GPT(ModelConfig(n_layer=1, n_embd=16, n_head=1, block_size=8, vocab_size=50))\n"
    script += "for optimizer in build_optimizers(model, OptimizerConfig(name='muon'), muon_dtype=torch.float32):\n"
    script += "    model(torch.zeros(1, 8, dtype=int), torch.zeros(1, 8, dtype=int))[0].backward()\n"
    script += "    optimizer.step()\n    optimizer.zero_grad()\nprint('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 48)])
def test_equals_torch_muon(shape: tuple[int, int]) -> None:
    """torch.optim.Muon iterates in bf16; so does acorn's here. A step changes weights by about the learning rate."""
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    lr, decay = 0.02, 0.1
    muon = Muon([{"params": [ours], "lr": lr, "weight_decay": decay}], 0.95, torch.bfloat16)
    reference = torch.optim.Muon([theirs], lr=lr, momentum=0.95, weight_decay=decay, nesterov=True)
    for _ in range(10):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        reference.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_batched_equals_separate() -> None:
    """Stacking matrices of equal shape does not change the results."""
    torch.manual_seed(0)
    values, gradients = torch.randn(2, 5, 24, 12)
    together = [torch.nn.Parameter(value.clone()) for value in values]
    alone = [torch.nn.Parameter(value.clone()) for value in values]
    groups = [
        {"params": parameters, "lr": 0.1, "weight_decay": 0.0} for parameters in (together, *([p] for p in alone))
    ]
    optimizers = [Muon([group], 0.9, torch.float32) for group in groups]
    for parameters in (together, alone):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
    for optimizer in optimizers:
        optimizer.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_orthogonalize_gives_singular_values_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 40, 24)))
    assert values.min() > 0.6
    assert values.max() < 1.3


@needs_fp16
@pytest.mark.parametrize("shape", [(3, 40, 24), (3, 24, 40), (1, 200, 200)])
def test_orthogonalize_with_fp16_matmuls(shape: tuple[int, int, int]) -> None:
    """Closer to the fp32 iterations than those in bf16, which are known to be sufficient."""
    torch.manual_seed(0)
    matrices, library = torch.randn(shape), fp16_library()
    assert not isinstance(library, Unavailable)
    exact = orthogonalize(matrices)
    ours = orthogonalize(matrices, Fp16Matmul(library, 2))
    in_bf16 = orthogonalize(matrices.bfloat16()).float()
    assert (ours - exact).norm() < (in_bf16 - exact).norm() < 0.1 * exact.norm()


def test_muon_refuses_vectors() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Muon([{"params": [torch.nn.Parameter(torch.zeros(4))], "lr": 0.1, "weight_decay": 0.0}], 0.9, torch.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_one_group_and_is_updated(shape: str, name: str) -> None:
    model = GPT(SHAPES[shape])
    model.init_weights(0)
    optimizers = build_optimizers(model, OptimizerConfig(name=name, weight_decay=0.0), muon_dtype=torch.float32)
    grouped = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}
    assert len(grouped) == len({id(p) for p in grouped})
    before = {key: value.clone() for key, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    set_rates(optimizers, 0.5)
    for optimizer in optimizers:
        optimizer.step()
    assert all(not torch.equal(before[key], value) for key, value in model.named_parameters())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("frozen", ["nothing", "the trunk", "the embeddings"])
def test_a_label_head_and_frozen_parameters(shape: str, name: str, frozen: str) -> None:
    """What is trained is in one group, AdamW's for the head; what is frozen in none, and it has no state."""
    model = GPT(SHAPES[shape], head=HeadSpec("tag", 3, bias=True))
    model.init_weights(0)
    for key, parameter in model.named_parameters():
        if frozen == "the trunk":
            parameter.requires_grad_(key.startswith("score."))
        elif frozen == "the embeddings":
            parameter.requires_grad_("embedding" not in key)
    config = OptimizerConfig(name=name, weight_decay=0.25)
    optimizers = build_optimizers(model, config, muon_dtype=torch.float32)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = [(type(o), group, [names[id(p)] for p in group["params"]]) for o in optimizers for group in o.param_groups]
    grouped = sorted(key for _, _, keys in groups for key in keys)
    assert grouped == sorted(key for key, parameter in model.named_parameters() if parameter.requires_grad)
    for kind, group, keys in groups:
        if "score.weight" in keys:
            rate = config.head_lr if name == "muon" else config.peak_lr
            assert (kind, group["peak_lr"], group["weight_decay"], keys) == (AdamW, rate, 0.25, ["score.weight"])
        if "score.bias" in keys:
            assert (kind, group["weight_decay"]) == (AdamW, 0.0)
    assert all(group["params"] for _, group, _ in groups)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_loras_factors_are_updated_by_adamw(shape: str, name: str) -> None:
    """Although they are matrices of the blocks; the frozen ones are in no group."""
    model = GPT(SHAPES[shape], lora=LoraSpec(2, 2.0, markup_ids=(3, 4)))
    config = OptimizerConfig(name=name, weight_decay=0.25, vector_lr=0.003, embedding_lr=0.002)
    (optimizer,) = build_optimizers(model, config, muon_dtype=torch.float32)
    assert isinstance(optimizer, AdamW)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    grouped = {names[id(p)]: group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert grouped.keys() == model.new_parameters()
    muon = name == "muon"
    assert grouped["blocks.0.attention.q_proj.lora_a"] == (0.003 if muon else config.peak_lr)
    assert grouped["token_embedding.markup_rows"] == (0.002 if muon else config.peak_lr)


def test_vectors_have_no_weight_decay() -> None:
    model = GPT(SHAPES["gpt2"])
    optimizers = build_optimizers(model, OptimizerConfig(weight_decay=0.1), muon_dtype=torch.float32)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            is_vector = {parameter.ndim < 2 for parameter in group["params"]}
            assert len(is_vector) == 1
            assert (group["weight_decay"] == 0) == is_vector.pop()
