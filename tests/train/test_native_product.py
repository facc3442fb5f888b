"""Networks whose products are in fp16 against the same in fp64, and who has such products."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import pytest
import torch
from cpus import needs_fp16
from torch import Tensor, nn

from acorn.config import Config, ModelConfig
from acorn.model.gpt import GPT, MLP
from acorn.runtime.device import Runtime
from acorn.train import environment
from acorn.train.native_attention import Fp16CausalAttention
from acorn.train.native_loss import NativeCrossEntropy
from acorn.train.native_product import NativeLinear, NativeReluMLP
from acorn.train.network import build_network

pytestmark = needs_fp16
M_PERTURB = -6
"""Number of mallopt's setting (malloc.h)."""

SHAPES: list[dict[str, Any]] = [
    {"architecture": "original"},
    {"architecture": "gpt2"},
    {"architecture": "modern"},
    {"architecture": "modern", "n_kv_head": 1, "tied": False},
]


def runtime(fp16: bool, precision: Any = "fp16") -> Runtime:
    return Runtime("cpu", precision, False, 2, True, fp16_products=fp16)


def network(runtime: Runtime, **shape: Any) -> GPT:
    sizes = {"vocab_size": 97, "n_layer": 2, "n_embd": 64, "n_head": 2, "block_size": 300}
    model, _ = build_network(Config(model=ModelConfig(**sizes | shape)), runtime)
    model.init_weights(0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # no matrix of zeros, which would hide what is behind it
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def loss_and_gradients(model: GPT, runtime: Runtime) -> dict[str, Tensor]:
    ids = torch.randint(97, (3, 301), generator=torch.Generator().manual_seed(1))
    with runtime.autocast():
        loss, count = model(ids[:, :-1], ids[:, 1:])
    (loss / count).backward()
    found = {"loss": (loss / count).detach()}
    return found | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Size of each error over that of the exact gradient; a key's bias, whose gradient is zero, is left out."""
    assert list(found) == list(exact)
    return {
        name: float((found[name] - value).norm() / value.norm())
        for name, value in exact.items()
        if "k_proj.bias" not in name
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_are_nearer_than_in_bf16(shape: dict[str, Any]) -> None:
    plain = runtime(False, "fp32")
    exact = GPT(network(plain, **shape).config)
    exact.load_state_dict(network(plain, **shape).state_dict())
    of_exact = loss_and_gradients(exact.double(), plain)
    ours = errors(loss_and_gradients(network(runtime(True), **shape), runtime(True)), of_exact)
    bf16 = runtime(False, "bf16")
    theirs = errors(loss_and_gradients(network(bf16, **shape), bf16), of_exact)
    assert ours["loss"] < 3e-4
    assert max(ours.values()) < 0.05
    assert all(ours[name] < theirs[name] for name in ours if name != "loss")


def test_passes_add_up() -> None:
    """Gradients of three passes of one sequence are those of one pass of three."""
    together, apart = network(runtime(True)), network(runtime(True))
    ids = torch.randint(97, (3, 65), generator=torch.Generator().manual_seed(1))
    together(ids[:, :-1], ids[:, 1:])[0].backward()
    for row in ids.split(1):
        apart(row[:, :-1], row[:, 1:])[0].backward()
    for one, other in zip(together.parameters(), apart.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert one.grad.is_contiguous()
        assert (one.grad - other.grad).norm() < 0.01 * one.grad.norm()


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
def test_dropout(architecture: str) -> None:
    """What is dropped is drawn as it is without these products, but for attention's weights."""
    found = []
    for one in (runtime(True), runtime(False, "fp32")):
        model = network(one, architecture=architecture, dropout=0.3)
        for block in model.blocks:
            block.attention.weight_dropout = 0.0
        torch.manual_seed(0)
        found.append(loss_and_gradients(model, one))
    assert max(errors(*found).values()) < 0.05
    assert errors(*found)["loss"] < 1e-3


@pytest.mark.parametrize("frozen", [(), ("up_proj.weight", "down_proj.bias"), ("up_proj.bias", "down_proj.weight")])
@pytest.mark.parametrize("x_needs", [True, False])
def test_the_seeds_mlp_is_that_of_single_operations(frozen: tuple[str, ...], x_needs: bool) -> None:
    """Over two passes, whose gradients add up; the second's are all the same number."""
    mlp = network(runtime(True), architecture="original").blocks[0].mlp
    assert isinstance(mlp, NativeReluMLP)
    for name, parameter in mlp.named_parameters():
        parameter.requires_grad_(name not in frozen)
    x, found = torch.randn(3, 150, 64, generator=torch.Generator().manual_seed(2)), []
    for forward in (mlp.forward, functools.partial(MLP.forward, mlp)):
        mlp.zero_grad()
        leaf = x.clone().requires_grad_(x_needs)
        y = forward(leaf)
        (y * x).sum().backward()
        forward(leaf).sum().backward()
        found.append([y.detach(), leaf.grad, *(parameter.grad for parameter in mlp.parameters())])
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    assert [gradient is None for gradient in found[0][2:]] == [name in frozen for name, _ in mlp.named_parameters()]


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_other_mlps_stay_what_they_are(architecture: str) -> None:
    assert type(network(runtime(True), architecture=architecture).blocks[0].mlp) is MLP


@pytest.mark.parametrize("shape", SHAPES)
def test_it_repeats_to_the_bit_whatever_its_memory_held_before(shape: dict[str, Any]) -> None:
    """glibc fills what it hands out with a byte: nothing, NaN, large numbers of either sign, ordinary ones."""
    perturb = getattr(ctypes.CDLL(None), "mallopt", None)
    found = []
    for byte in (0, 0x100, 0x80, 0x01, 0xBC):  # their complement, that is
        if perturb is not None:
            perturb(M_PERTURB, byte)
        try:
            found.append(loss_and_gradients(network(runtime(True), **shape), runtime(True)))
        finally:
            if perturb is not None:
                perturb(M_PERTURB, 0)
    for others in found[1:]:
        assert all(torch.equal(found[0][name], others[name]) for name in found[0])


def test_who_has_them() -> None:
    with_them, without = network(runtime(True)), network(runtime(False, "fp32"))
    assert nn.Linear not in {type(module) for module in with_them.modules()}
    assert NativeLinear not in {type(module) for module in without.modules()}
    assert list(with_them.state_dict()) == list(without.state_dict())
    assert [type(module) for module in with_them.modules()].count(Fp16CausalAttention) == 2
    assert isinstance(with_them.head.cross_entropy, NativeCrossEntropy)
    assert with_them.head.cross_entropy.multiply(torch.ones(1, 2), torch.full((2, 1), 1 + 2**-12)) == 2  # rounded
    assert environment.describe_environment(runtime(True), "")["native"] == "loss, blocks, products, attention"
    assert environment.describe_environment(runtime(False, "fp32"), "")["native"] == "loss, blocks"


def test_a_loss_without_gradients_is_the_same() -> None:
    """A validation's, whose logits are made a few at a time."""
    model, ids = network(runtime(True)), torch.arange(97).expand(3, 97)
    loss, _ = model(ids, ids)
    with torch.no_grad():
        alone, _ = model(ids, ids)
    exact, _ = network(runtime(False, "fp32"))(ids, ids)
    assert float(alone) == pytest.approx(float(exact), rel=3e-4)
    assert float(loss) == pytest.approx(float(exact), rel=3e-4)


def test_other_types_go_pytorchs_way() -> None:
    linear = nn.Linear(8, 4).bfloat16()
    x = torch.randn(3, 8).bfloat16()
    product = runtime(True).fp16_product()
    assert product is not None
    assert torch.equal(NativeLinear(linear, product)(x), linear(x))
