"""A block's operations in C, compared with those of model.ops in fp64; and a whole network with both."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acorn.config import ModelConfig
from acorn.kernels import attention, block
from acorn.kernels.block import CKernels
from acorn.kernels.build import Unavailable, c_library
from acorn.kernels.choose import training_ops
from acorn.model import ops
from acorn.model.gpt import GPT
from acorn.model.kv_cache import KVCache
from acorn.model.ops import Ops, rotary_tables
from acorn.runtime.device import Runtime

pytestmark = pytest.mark.usefixtures("cpu")
TYPES = [(torch.float32, 2e-6), (torch.bfloat16, 2**-7)]
"""Type of the inputs, and tolerance of a result relative to its largest element."""


def c_kernels(threads: int = 2) -> CKernels:
    library = c_library("training")
    assert not isinstance(library, Unavailable)
    return CKernels(library, threads)


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def near(ours: Tensor | None, exact: Tensor | None, tolerance: float) -> None:
    assert ours is not None
    assert exact is not None
    assert ours.shape == exact.shape
    # 0.1: a key's bias has no effect, so its gradient is noise.
    assert (ours.double() - exact).abs().max() <= tolerance * exact.abs().max().clamp(min=0.1)


@pytest.mark.parametrize("C", [3, 15, 16, 40, 256])
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
@pytest.mark.parametrize("autocast", [False, True])
def test_rms_norm(C: int, dtype: torch.dtype, tolerance: float, autocast: bool) -> None:
    exact = nn.RMSNorm(C, 1e-5).double()
    exact.weight.data = some(C, seed=1).double()
    weight = exact.weight.detach().float().requires_grad_()
    x = (3 * some(5, 7, C)).to(dtype).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    y = block.rmsnorm(c_kernels(), torch.bfloat16 if autocast else None, x, weight, 1e-5)
    assert y.dtype == (torch.bfloat16 if autocast else dtype)
    wanted, grad = exact(exact_x), some(5, 7, C, seed=2).to(y.dtype)
    y.backward(grad)
    wanted.backward(grad.double())
    near(y, wanted, 2**-7 if autocast else tolerance)
    near(x.grad, exact_x.grad, tolerance)
    near(weight.grad, exact.weight.grad, 2e-6)


@pytest.mark.parametrize("D", [2, 18, 32, 64, 70])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_qk_norm_rope(D: int, normed: bool, dtype: torch.dtype, tolerance: float) -> None:
    B, T, H = 3, 5, 4
    weight = some(D, seed=1).requires_grad_() if normed else None
    exact_weight = None if weight is None else weight.detach().double().requires_grad_()
    rotation = rotary_tables(torch.arange(T), D, 100.0)
    x = some(B, T, H, D).to(dtype).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    y = block.qk_norm_rope(c_kernels(), x, weight, 1e-6, rotation)
    wanted = ops.qk_norm_rope(exact_x, exact_weight, 1e-6, (rotation[0].double(), rotation[1].double()))
    assert y.dtype == dtype
    assert wanted.shape == (B, H, T, D)
    grad = some(B, H, T, D, seed=2).to(dtype)
    y.backward(grad)
    wanted.backward(grad.double())
    near(y, wanted, tolerance)
    near(x.grad, exact_x.grad, tolerance)
    if weight is not None and exact_weight is not None:
        near(weight.grad, exact_weight.grad, 2e-6)


@pytest.mark.parametrize("F", [1, 16, 37])
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_swiglu(F: int, dtype: torch.dtype, tolerance: float) -> None:
    gate, up = ((30 * some(3, 5, F, seed=seed)).to(dtype).requires_grad_() for seed in (1, 2))
    exact_gate, exact_up = (x.detach().double().requires_grad_() for x in (gate, up))
    y, wanted = block.swiglu(c_kernels(), gate, up), ops.swiglu(exact_gate, exact_up)
    grad = some(3, 5, F, seed=3).to(dtype)
    y.backward(grad)
    wanted.backward(grad.double())
    near(y, wanted, tolerance)
    near(gate.grad, exact_gate.grad, tolerance)
    near(up.grad, exact_up.grad, tolerance)


@pytest.mark.parametrize("F", [1, 16, 37])
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_gelu(F: int, dtype: torch.dtype, tolerance: float) -> None:
    x = (3 * some(3, 5, F, seed=1)).to(dtype).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    y, wanted = block.gelu(c_kernels(), x), ops.gelu(exact_x)
    grad = some(3, 5, F, seed=2).to(dtype)
    y.backward(grad)
    wanted.backward(grad.double())
    assert y.dtype == dtype
    near(y, wanted, tolerance)
    near(x.grad, exact_x.grad, tolerance)


def test_gelu_of_very_large_values() -> None:
    x = torch.tensor([-1e38, -1e5, -20.0, 0.0, 20.0, 1e5, 1e38]).requires_grad_()
    y = block.gelu(c_kernels(1), x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), x.detach().clamp(min=0))
    torch.testing.assert_close(x.grad, torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize(("queries", "begin"), [(1, 0), (5, 0), (16, 0), (70, 0), (3, 40), (20, 16)])
@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_attention_weights(queries: int, begin: int, dtype: torch.dtype, tolerance: float) -> None:
    N, D, keys = 3, 8, begin + queries
    q, k = some(N, queries, D, seed=1).to(dtype).requires_grad_(), some(N, keys, D, seed=2).to(dtype).requires_grad_()
    exact_q, exact_k = (x.detach().double().requires_grad_() for x in (q, k))
    weights = block.attention_weights(c_kernels(), q, k, begin)
    wanted = (exact_q @ exact_k.mT / D**0.5).masked_fill(torch.ones(queries, keys).triu(begin + 1) > 0, -torch.inf)
    wanted = wanted.softmax(-1)
    grad = some(N, queries, keys, seed=3).to(dtype)
    weights.backward(grad)
    wanted.backward(grad.double())
    near(weights, wanted, 4 * tolerance)  # in bf16 the scores are rounded too
    near(q.grad, exact_q.grad, 8 * tolerance)
    near(k.grad, exact_k.grad, 8 * tolerance)
    assert (weights[wanted == 0] == 0).all()


def test_nan_and_infinity_propagate() -> None:
    nan = torch.full((1, 3, 4), float("nan"))
    assert block.attention_weights(c_kernels(1), nan, nan, 0).isnan().sum() == 6
    x = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0]])
    assert block.rmsnorm(c_kernels(1), None, x, torch.ones(2), 1e-6).isnan().any(1).all()
    assert block.gelu(c_kernels(1), x).isfinite().tolist() == [[False, True], [False, True]]
    assert torch.autograd.grad(block.gelu(c_kernels(1), x.requires_grad_()).sum(), x)[0].isnan().tolist() == [
        [True, False],
        [False, False],
    ]
    x.requires_grad_(False)
    assert block.swiglu(c_kernels(1), x, torch.ones(2, 2)).isfinite().tolist() == [
        [False, True],
        [False, True],
    ]


def test_a_nan_of_all_ones_stays_nan() -> None:
    """As GPUs produce it: adding to its bits for rounding would turn it into -0."""
    x = torch.tensor([[0x7FFFFFFF] * 20], dtype=torch.int32).view(torch.float32)
    y = block.rmsnorm(c_kernels(1), torch.bfloat16, x, torch.ones(20), 1e-6)
    assert y.dtype == torch.bfloat16
    assert y.isnan().all()


SHAPES: list[dict[str, Any]] = [
    {},
    {"qk_norm": False},
    {"n_head": 4, "n_kv_head": 2, "head_width": 24, "n_inner": 50},
    {"architecture": "gpt2"},
    {"architecture": "original"},
]


def network(native: bool, precision: str = "fp32", **shape: Any) -> tuple[GPT, Runtime]:
    runtime = Runtime("cpu", precision, False, 2, True)  # type: ignore[arg-type]
    sizes = {"architecture": "modern", "vocab_size": 97, "n_layer": 2, "n_embd": 64, "block_size": 16}
    matmul_dtype = None if runtime.dtype == torch.float32 else runtime.dtype
    written_out = functools.partial(attention.attention, attention.attention_weights)
    plain = Ops(matmul_dtype=matmul_dtype, attention=written_out)
    used = training_ops(runtime, in_place_gradients=False) if native else plain
    model = GPT(ModelConfig(**sizes | shape), used)
    model.init_weights(0)
    with torch.no_grad():
        for parameter in model.parameters():  # no matrix of zeros, which would hide errors
            parameter.add_(0.1 * some(*parameter.shape, seed=parameter.numel()))
    return model, runtime


def loss_and_gradients(model: GPT, runtime: Runtime) -> dict[str, Tensor]:
    ids = torch.randint(97, (3, 17), generator=torch.Generator().manual_seed(1))
    with runtime.autocast():
        loss, _ = model(ids[:, :-1], ids[:, 1:])
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_network_loss_and_gradients(shape: dict[str, Any], precision: str, tolerance: float) -> None:
    ours, theirs, again = (loss_and_gradients(*network(native, precision, **shape)) for native in (True, False, True))
    assert list(ours) == list(theirs)
    for name, expected in theirs.items():
        near(ours[name], expected.double(), tolerance)
        assert torch.equal(ours[name], again[name])


@torch.inference_mode()
def test_sequences_of_unequal_lengths() -> None:
    """Then each has its own rotation, which the C code does not support."""
    (ours, _), (theirs, _) = network(True), network(False)
    ids = torch.arange(12).view(2, 6)
    kept = [KVCache(model.config, 2, 8) for model in (ours, theirs)]
    for model, cache in zip((ours, theirs), kept, strict=True):
        model.hidden(ids[:1, :2], cache.narrow(1, 1))
    torch.testing.assert_close(ours.hidden(ids, kept[0]), theirs.hidden(ids, kept[1]), rtol=1e-5, atol=1e-5)


def test_unsupported_inputs_use_pytorch() -> None:
    values, weight = some(3, 5).double(), torch.ones(8)
    assert torch.equal(block.gelu(c_kernels(1), values), ops.gelu(values))
    assert torch.equal(block.swiglu(c_kernels(1), values, values), ops.swiglu(values, values))
    x, rotation = some(1, 3, 2, 8), rotary_tables(torch.arange(3), 8, 100.0)
    assert torch.equal(block.rmsnorm(c_kernels(1), torch.float16, x, weight, 1e-6), ops.rmsnorm(x, weight, 1e-6))
    narrow = x.bfloat16(), weight.bfloat16(), 1e-6, rotation
    assert torch.equal(block.qk_norm_rope(c_kernels(1), *narrow), ops.qk_norm_rope(*narrow))
    wide = x.double(), None, 0.0, rotation
    assert torch.equal(block.qk_norm_rope(c_kernels(1), *wide), ops.qk_norm_rope(*wide))
    assert torch.equal(block.qk_norm_rope(c_kernels(1), x, weight, 1e-6, None), ops.qk_norm_rope(x, weight, 1e-6, None))
