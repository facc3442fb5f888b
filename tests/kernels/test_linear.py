"""Linear layers with fp16 matmuls, alone and in networks, compared with fp64."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import pytest
import torch
from cpus import needs_fp16
from torch import Tensor

from acorn.config import Config, ModelConfig
from acorn.kernels import linear
from acorn.kernels.matmul import Fp16Matmul, fp16_matmul
from acorn.model import ops
from acorn.model.gpt import GPT
from acorn.runtime.device import Runtime
from acorn.train.network import build_network

pytestmark = needs_fp16
M_PERTURB = -6
"""Parameter of mallopt (malloc.h)."""

SHAPES: list[dict[str, Any]] = [
    {"architecture": "original"},
    {"architecture": "gpt2"},
    {"architecture": "modern"},
    {"architecture": "modern", "n_kv_head": 1, "tied": False},
]


def runtime(fp16: bool, precision: Any = "fp16") -> Runtime:
    return Runtime("cpu", precision, False, 2, True, fp16_matmuls=fp16)


def network(runtime: Runtime, **shape: Any) -> GPT:
    sizes = {"vocab_size": 97, "n_layer": 2, "n_embd": 64, "n_head": 2, "block_size": 300}
    model, _ = build_network(Config(model=ModelConfig(**sizes | shape)), runtime)
    model.init_weights(0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # no matrix of zeros, which would hide errors
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
    """Norm of each error relative to that of the exact gradient, without the biases of keys, whose gradient is zero."""
    assert list(found) == list(exact)
    return {
        name: float((found[name] - value).norm() / value.norm())
        for name, value in exact.items()
        if "k_proj.bias" not in name
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_are_more_exact_than_in_bf16(shape: dict[str, Any]) -> None:
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


def test_gradients_of_micro_batches_add_up() -> None:
    """Three micro-batches of one sequence have the gradients of one micro-batch of three."""
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
    """Dropout is the same as without fp16 matmuls, except for attention weights."""
    found = []
    for one in (runtime(True), runtime(False, "fp32")):
        model = network(one, architecture=architecture, dropout=0.3)
        for block in model.blocks:
            block.attention.weight_dropout = 0.0
        torch.manual_seed(0)
        found.append(loss_and_gradients(model, one))
    assert max(errors(*found).values()) < 0.05
    assert errors(*found)["loss"] < 1e-3


def own_matmul() -> Fp16Matmul:
    found = fp16_matmul(runtime(True))
    assert found is not None
    return found


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("frozen", ["", "weight", "bias", "x"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_layer(relu: bool, frozen: str, in_place: bool) -> None:
    """Over two backwards, whose gradients add up; the second output gradient is constant."""
    generator = torch.Generator().manual_seed(2)
    shapes = {"x": (3, 50, 64), "weight": (40, 64), "bias": (40,)}
    values = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    mine, exact = ({name: value.clone() for name, value in values.items()} for _ in range(2))
    exact = {name: value.double() for name, value in exact.items()}
    grad = torch.randn(3, 50, 40, generator=generator)
    for tensors, layer in ((mine, functools.partial(linear.linear, own_matmul(), in_place)), (exact, ops.linear)):
        for name, value in tensors.items():
            value.requires_grad_(name != frozen)
        for gradient in (grad, torch.ones(()).expand(3, 50, 40)):
            tensors["y"] = layer(tensors["x"], tensors["weight"], tensors["bias"], relu)
            tensors["y"].backward(gradient.to(tensors["y"].dtype))
    assert (mine["y"] - exact["y"]).norm() < 0.003 * exact["y"].norm()
    for name in shapes:
        assert (mine[name].grad is None) == (exact[name].grad is None) == (name == frozen)
        if name != frozen:
            tolerance = 0.1 if relu else 0.02  # a result near zero with another sign changes a gradient
            assert (mine[name].grad - exact[name].grad).norm() < tolerance * exact[name].grad.norm(), name


def test_fused_relu() -> None:
    """Bit-identical to a separate ReLU, forward and backward."""
    x, weight, bias = torch.randn(30, 64), torch.randn(40, 64), torch.randn(40)
    layer, found = functools.partial(linear.linear, own_matmul(), False), []
    for apart in (False, True):
        leaves = [value.clone().requires_grad_() for value in (x, weight, bias)]
        y = layer(*leaves).relu() if apart else layer(*leaves, True)
        y.backward(torch.ones_like(y))
        found.append([y.detach(), *(leaf.grad for leaf in leaves)])
    assert all(map(torch.equal, *found))


def test_hooks_and_autograd_get_gradients_without_in_place_accumulation() -> None:
    x, weight = torch.randn(30, 64), torch.randn(40, 64, requires_grad=True)
    (grad,) = torch.autograd.grad(linear.linear(own_matmul(), False, x, weight, None).sum(), weight)
    assert grad is not None
    assert weight.grad is None


@pytest.mark.parametrize("shape", SHAPES)
def test_results_do_not_depend_on_uninitialized_memory(shape: dict[str, Any]) -> None:
    """glibc fills allocated memory with a byte: zeros, NaN, large values of either sign, ordinary ones."""
    perturb = getattr(ctypes.CDLL(None), "mallopt", None)
    found = []
    for byte in (0, 0x100, 0x80, 0x01, 0xBC):  # glibc uses the complement
        if perturb is not None:
            perturb(M_PERTURB, byte)
        try:
            found.append(loss_and_gradients(network(runtime(True), **shape), runtime(True)))
        finally:
            if perturb is not None:
                perturb(M_PERTURB, 0)
    for others in found[1:]:
        assert all(torch.equal(found[0][name], others[name]) for name in found[0])


def test_loss_without_gradients() -> None:
    """As in validation, whose logits are computed in chunks."""
    model, ids = network(runtime(True)), torch.arange(97).expand(3, 97)
    loss, _ = model(ids, ids)
    with torch.no_grad():
        alone, _ = model(ids, ids)
    exact, _ = network(runtime(False, "fp32"))(ids, ids)
    assert float(alone) == pytest.approx(float(exact), rel=3e-4)
    assert float(loss) == pytest.approx(float(exact), rel=3e-4)


def test_other_types_use_pytorch() -> None:
    x, weight, bias = torch.randn(3, 8).bfloat16(), torch.randn(4, 8).bfloat16(), torch.randn(4).bfloat16()
    for relu in (False, True):
        assert torch.equal(linear.linear(own_matmul(), True, x, weight, bias, relu), ops.linear(x, weight, bias, relu))
