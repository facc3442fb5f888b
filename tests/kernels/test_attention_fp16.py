"""Attention with fp16 matmuls, compared with PyTorch's in fp64."""

from __future__ import annotations

import ctypes

import pytest
import torch
import torch.nn.functional as F
from cpus import needs_fp16
from torch import Tensor

from acorn.kernels import attention_fp16
from acorn.kernels.attention_fp16 import attention_workspace
from acorn.kernels.block import CKernels
from acorn.kernels.build import Unavailable
from acorn.kernels.matmul import fp16_library
from acorn.model import ops

pytestmark = needs_fp16


def c_kernels(threads: int = 2) -> CKernels:
    library = fp16_library()
    assert not isinstance(library, Unavailable)
    return CKernels(library, threads)


def attention(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, threads: int = 2) -> Tensor:
    return attention_fp16.attention(c_kernels(threads), q, k, v, None, dropout_p)


def some(B: int, H: int, T: int, D: int, seed: int, in_place: bool = False) -> Tensor:
    """Heads in the layout of qk_norm_rope, or of a projection."""
    generator = torch.Generator().manual_seed(seed)
    shape = (B, T, H, D) if in_place else (B, H, T, D)
    x = torch.randn(shape, generator=generator)
    return (x.transpose(1, 2) if in_place else x).requires_grad_()


@pytest.mark.parametrize("T", [1, 5, 47, 48, 49, 200, 600])
@pytest.mark.parametrize(("H", "K"), [(1, 1), (2, 2), (4, 2), (6, 1)])
@pytest.mark.parametrize("D", [8, 33, 64])
def test_output_and_gradients(T: int, H: int, K: int, D: int) -> None:
    check(T, H, K, D)


@pytest.mark.parametrize(("T", "D"), [(2100, 8), (70, 140), (70, 520)])
def test_matmuls_of_several_blocks(T: int, D: int) -> None:
    check(T, 2, 1, D)


def check(T: int, H: int, K: int, D: int) -> None:
    q, k, v = some(2, H, T, D, 1), some(2, K, T, D, 2), some(2, K, T, D, 3, in_place=True)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    y = attention(q, k, v)
    wanted = F.scaled_dot_product_attention(*exact, is_causal=True, enable_gqa=True)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    ours, theirs = torch.autograd.grad(y, (q, k, v), grad), torch.autograd.grad(wanted, exact, grad.double())
    assert y.shape == wanted.shape
    for one, other in zip((y, *ours), (wanted, *theirs), strict=True):
        # 1e-3: with one token there is nothing to attend to, and gradients of q and k are zero.
        assert (one.detach() - other.detach()).norm() <= 0.005 * other.norm() + 1e-3
    for leaf, gradient in zip((q, k, v), ours, strict=True):
        assert gradient.stride() == leaf.stride()


def test_later_tokens_are_not_attended_to() -> None:
    q, k, v = (some(1, 2, 300, 16, seed) for seed in (1, 2, 3))
    y = attention(q, k, v)
    with torch.no_grad():
        k[:, :, 250:] = 100
        v[:, :, 250:] = 100
    changed = attention(q, k, v)
    assert torch.equal(changed[:, :, :128], y[:, :, :128])  # values are scaled and rounded in slices of 128
    torch.testing.assert_close(
        changed[:, :, :250], y[:, :, :250], rtol=0, atol=0.05
    )  # different scales round differently
    assert not torch.equal(changed[:, :, 250:], y[:, :, 250:])


def kept_weights(B: int, H: int, K: int, T: int, dropout_p: float, seed: int) -> Tensor:
    """Which weights dropout keeps (B, H, T, T): all weights are equal, and unit vectors as values show each one."""
    torch.manual_seed(seed)
    q, k, v = torch.zeros(B, H, T, T), torch.zeros(B, K, T, T), torch.eye(T).expand(B, K, T, T)
    return attention(q, k, v, dropout_p) > 0


@pytest.mark.parametrize(("T", "H", "K"), [(1, 1, 1), (5, 2, 1), (96, 4, 2), (130, 2, 2)])
def test_output_and_gradients_with_dropout(T: int, H: int, K: int) -> None:
    D, p = T, 0.25
    q, k, v = some(2, H, T, D, 1), some(2, K, T, D, 2), some(2, K, T, D, 3, in_place=True)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    torch.manual_seed(5)
    y = attention(q, k, v, p)
    exact_k, exact_v = (x.repeat_interleave(H // K, dim=1) for x in exact[1:])
    scores = (exact[0] @ exact_k.mT / D**0.5).masked_fill(torch.ones(T, T).triu(1) > 0, -torch.inf)
    wanted = (scores.softmax(-1) * kept_weights(2, H, K, T, p, 5) / (1 - p)) @ exact_v
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    ours, theirs = torch.autograd.grad(y, (q, k, v), grad), torch.autograd.grad(wanted, exact, grad.double())
    for one, other in zip((y, *ours), (wanted, *theirs), strict=True):
        assert (one.detach() - other.detach()).norm() <= 0.005 * other.norm() + 1e-3


@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_weights_are_dropped_independently(p: float) -> None:
    B, H, T = 3, 4, 256
    kept = kept_weights(B, H, H, T, p, 5)
    seen = torch.ones(T, T).tril() > 0
    assert not kept[..., ~seen].any()
    n = B * H * int(seen.sum())
    assert kept.sum().item() == pytest.approx((1 - p) * n, abs=5 * (n * p * (1 - p)) ** 0.5)
    rest = (kept.double() - (1 - p))[..., T // 2 :, : T // 2]  # keys that all these queries attend to
    pairs = {
        "sequences": (rest[0], rest[1]),
        "heads": (rest[:, 0], rest[:, 1]),
        "queries": (rest[..., 1:, :], rest[..., :-1, :]),
        "keys": (rest[..., 1:], rest[..., :-1]),
        "diagonals": (rest[..., 1:, 1:], rest[..., :-1, :-1]),
    }
    for name, (one, other) in pairs.items():
        spread = p * (1 - p) * one.numel() ** 0.5
        assert abs((one * other).sum().item()) < 5 * spread, name


def test_dropped_weights_depend_on_pytorchs_seed() -> None:
    one, again, other = (kept_weights(1, 2, 2, 64, 0.5, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    q, k, v = (some(1, 2, 64, 16, seed) for seed in (1, 2, 3))
    assert not torch.equal(attention(q, k, v, 0.5), attention(q, k, v, 0.5))  # each call draws its own seed


@pytest.mark.parametrize("dropout_p", [0.0, 0.2])
def test_results_do_not_depend_on_the_number_of_threads(dropout_p: float) -> None:
    found = []
    for threads in (1, 2, 5):
        q, k, v = (some(2, heads, 200, 16, 1) for heads in (4, 2, 2))
        torch.manual_seed(0)
        y = attention(q, k, v, dropout_p, threads)
        found.append((y, *torch.autograd.grad(y, (q, k, v), torch.ones_like(y))))
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


def test_unsupported_inputs_use_pytorch() -> None:
    q, k, v = (some(1, 1, 9, 8, seed) for seed in (1, 2, 3))
    narrow = [x.detach().bfloat16() for x in (q, k, v)]
    torch.manual_seed(0)
    dropped = attention(*narrow, 0.5)
    torch.manual_seed(0)
    assert torch.equal(dropped, ops.attention(*narrow, None, 0.5))
    assert not torch.equal(dropped, attention(*narrow))
    with torch.no_grad():
        assert torch.equal(attention(q, k, v), ops.attention(q, k, v, None, 0.0))
    mask = torch.ones(9, 9).tril() > 0
    assert torch.equal(attention_fp16.attention(c_kernels(), q, k, v, mask, 0.0), ops.attention(q, k, v, mask, 0.0))
    non_contiguous = [x.detach().mT.contiguous().mT for x in (q, k, v)]  # heads that are not contiguous
    assert torch.equal(attention(*non_contiguous), attention(q, k, v))


def test_nan_propagates() -> None:
    q, k, v = (some(1, 1, 9, 8, seed).detach() for seed in (1, 2, 3))
    q[0, 0, 4, 2] = torch.nan
    assert attention(q, k, v)[0, 0, 4].isnan().all()


@pytest.mark.parametrize(("T", "D"), [(1, 64), (64, 16), (200, 33), (512, 64), (4096, 64), (1024, 256)])
def test_workspace_size(T: int, D: int) -> None:
    assert attention_workspace(T, D, 3) == pytest.approx(
        3 * c_kernels().library.attention_workspace_bytes(T, D), rel=0.1
    )


def test_out_of_memory() -> None:
    class Full(ctypes.Structure):
        @staticmethod
        def attention_forward(*arguments: object) -> int:
            return 1

    q, k, v = (some(1, 1, 9, 8, seed) for seed in (1, 2, 3))
    with pytest.raises(MemoryError):
        attention_fp16.attention(CKernels(Full(), 1), q, k, v, None, 0.0)  # type: ignore[arg-type]
