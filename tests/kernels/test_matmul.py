"""fp16 matmuls compared with fp64, for matrices of whole and of partial tiles."""

from __future__ import annotations

import ctypes
import math
import subprocess
from importlib import resources
from pathlib import Path

import pytest
import torch
from cpus import needs_fp16
from torch import Tensor

from acorn.kernels import matmul as module
from acorn.kernels.build import FLAGS, SOURCES, Unavailable, find_compiler
from acorn.kernels.matmul import Fp16Matmul, fp16_library, has_fp16_instructions
from acorn.kernels.prototypes import declare

library = fp16_library()
SHAPES = [
    *[(1, 1, 1), (1, 70, 200), (30, 1, 200), (30, 70, 1), (12, 64, 128), (13, 65, 129), (37, 70, 200), (5, 300, 7)],
    *[(400, 20, 1100), (3, 2100, 513), (200, 2100, 140)],
]
"""M, N, K: less than a tile, one tile, a little more; more than a block of rows, of columns, of depth."""


def fp16_matmul(threads: int = 2) -> Fp16Matmul:
    assert not isinstance(library, Unavailable)
    return Fp16Matmul(library, threads)


def some(*shape: int, transposed: bool = False, seed: int = 0) -> Tensor:
    """Random elements; transposed: with contiguous columns."""
    generator = torch.Generator().manual_seed(seed)
    if not transposed:
        return torch.randn(shape, generator=generator)
    return torch.randn((*shape[:-2], shape[-1], shape[-2]), generator=generator).mT


def error(ours: Tensor, a: Tensor, b: Tensor) -> float:
    """Norm of the error, relative to that of the exact result."""
    exact = a.double() @ b.double()
    return float((ours - exact).norm() / exact.norm())


def rounded(a: Tensor, b: Tensor, dtype: torch.dtype) -> float:
    """The error of an exact matmul with operands rounded to `dtype`."""
    return error(a.to(dtype).double() @ b.to(dtype).double(), a, b)


@needs_fp16
@pytest.mark.parametrize(("M", "N", "K"), SHAPES)
@pytest.mark.parametrize("a_transposed", [False, True])
@pytest.mark.parametrize("b_transposed", [False, True])
def test_matmul(M: int, N: int, K: int, a_transposed: bool, b_transposed: bool) -> None:
    a, b = some(M, K, transposed=a_transposed), some(K, N, transposed=b_transposed, seed=1)
    ours = fp16_matmul()(a, b)
    assert ours.shape == (M, N)
    assert error(ours, a, b) < 0.003
    many = fp16_matmul()(a.expand(3, M, K), torch.stack([b, 2 * b, -b]))
    assert torch.equal(many, torch.stack([ours, 2 * ours, -ours]))  # bit-identical, because scales are powers of two


@needs_fp16
def test_more_exact_than_bf16() -> None:
    a, b = some(100, 1024), some(1024, 100, seed=1)
    assert rounded(a, b, torch.float16) < error(fp16_matmul()(a, b), a, b) < 0.8 * rounded(a, b, torch.bfloat16)


@needs_fp16
@pytest.mark.parametrize("sizes", [(1e-30, 1.0), (1e-12, 1e-12), (1e20, 1e-20), (1e15, 1e15), (1e-38, 1e20)])
def test_values_beyond_the_range_of_fp16(sizes: tuple[float, float]) -> None:
    a, b = some(40, 300).clamp(-1, 1) * sizes[0], some(300, 70, seed=1).clamp(-1, 1) * sizes[1]
    assert error(fp16_matmul()(a, b), a, b) < 0.003


@needs_fp16
def test_rows_and_columns_of_different_sizes() -> None:
    """Each panel has its own scale, so large values in one do not round away small values in another."""
    a, b = some(240, 256), some(256, 640, seed=1)
    a[:120] *= 1e-6
    b[:, :320] *= 1e6
    ours = fp16_matmul()(a, b)
    for rows in (slice(120), slice(120, None)):
        for columns in (slice(320), slice(320, None)):
            assert error(ours[rows, columns], a[rows], b[:, columns]) < 0.003


@needs_fp16
def test_a_channel_much_larger_than_the_others() -> None:
    """It costs the other channels precision, but no more than its own rounding to bf16 would."""
    a, b = some(60, 512), some(512, 60, seed=1)
    a[:, 0] *= 1000
    assert error(fp16_matmul()(a, b), a, b) < rounded(a, b, torch.bfloat16)


@needs_fp16
def test_zeros_are_exact_and_non_finite_values_propagate() -> None:
    a, b = some(30, 200), some(200, 90, seed=1)
    assert torch.equal(fp16_matmul()(torch.zeros_like(a), b), torch.zeros(30, 90))
    for number in (math.nan, math.inf, -math.inf):
        wrong = a.clone()
        wrong[17, 150] = number
        ours = fp16_matmul()(wrong, b)
        assert not ours[17].isfinite().any()
        assert error(ours[:12], a[:12], b) < 0.003  # in another panel
        wrong = b.clone()
        wrong[150, 80] = number
        ours = fp16_matmul()(a, wrong)
        assert not ours[:, 80].isfinite().any()
        assert error(ours[:, :64], a, b[:, :64]) < 0.003


@needs_fp16
@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_do_not_depend_on_the_number_of_threads(count: int) -> None:
    a, b = some(count, 300, 700), some(count, 700, 100, seed=1)
    assert torch.equal(fp16_matmul(1)(a, b), fp16_matmul(2)(a, b))
    assert torch.equal(fp16_matmul(1)(a, b), fp16_matmul(5)(a, b))


@needs_fp16
def test_out_and_add() -> None:
    a, b = some(50, 600, transposed=True), some(600, 80, seed=1)
    room = torch.full((60, 100), math.nan)
    out = room[:50, :80]
    assert fp16_matmul()(a, b, out) is out
    ours = fp16_matmul()(a, b)
    assert torch.equal(out, ours)
    assert room[50:].isnan().all()
    assert room[:, 80:].isnan().all()
    fp16_matmul()(a, b, out, add=True)
    assert (out - 2 * ours).abs().max() < 1e-4
    before, bias = out.clone(), 10 * some(80, seed=2)
    fp16_matmul()(a, b, out, add=True, bias=bias, relu=True)
    assert (out - (before + ours + bias).relu()).abs().max() < 1e-4
    assert room[50:].isnan().all()
    assert room[:, 80:].isnan().all()
    with pytest.raises(ValueError, match="contiguous rows"):
        fp16_matmul()(a, b, torch.empty(80, 50).T)


@needs_fp16
@pytest.mark.parametrize(("M", "N", "K"), SHAPES)
def test_bias_and_relu_are_applied_once(M: int, N: int, K: int) -> None:
    a, b, bias = some(M, K), some(K, N, seed=1), 10 * some(N, seed=2)
    plain = fp16_matmul()(a, b)
    assert torch.equal(fp16_matmul()(a, b, bias=bias), plain + bias)
    assert torch.equal(fp16_matmul()(a, b, relu=True), plain.relu())
    for threads in (1, 5):
        assert torch.equal(fp16_matmul(threads)(a, b, bias=bias, relu=True), (plain + bias).relu())
    many = fp16_matmul()(a.expand(3, M, K), torch.stack([b, 2 * b, -b]), bias=bias, relu=True)
    assert torch.equal(many, (torch.stack([plain, 2 * plain, -plain]) + bias).relu())


@needs_fp16
def test_relu_keeps_nan() -> None:
    assert fp16_matmul()(torch.ones(3, 2), torch.full((2, 5), math.nan), relu=True).isnan().all()


@needs_fp16
@pytest.mark.parametrize(
    "bias",
    [
        torch.ones(5),
        torch.ones(1),
        torch.ones(2, 6),
        torch.ones(6).double(),
        torch.ones(6, 2)[:, 0],
        torch.ones(6, device="meta"),
    ],
)
def test_an_invalid_bias_is_refused(bias: Tensor) -> None:
    with pytest.raises(ValueError, match="bias"):
        fp16_matmul()(torch.ones(4, 8), torch.ones(8, 6), bias=bias)


@needs_fp16
def test_empty_matrices() -> None:
    assert fp16_matmul()(torch.zeros(0, 4), torch.zeros(4, 3)).shape == (0, 3)
    assert torch.equal(fp16_matmul()(torch.zeros(2, 0), torch.zeros(0, 3)), torch.zeros(2, 3))
    assert torch.equal(
        fp16_matmul()(torch.zeros(2, 0), torch.zeros(0, 3), torch.ones(2, 3), add=True), torch.ones(2, 3)
    )
    assert torch.equal(fp16_matmul()(torch.zeros(2, 0), torch.zeros(0, 3), bias=torch.ones(3)), torch.ones(2, 3))
    ones = torch.ones(()).expand(5, 7)  # neither rows nor columns are contiguous
    assert torch.equal(fp16_matmul()(ones, ones.T), torch.full((5, 5), 7.0))


@needs_fp16
@pytest.mark.parametrize(
    ("a", "b", "out"),
    [
        (torch.ones(4, 8), torch.ones(5, 6), None),
        (torch.ones(9, 4, 8), torch.ones(8, 6), None),
        (torch.ones(2, 4, 8), torch.ones(3, 8, 6), None),
        (torch.ones(4, 8), torch.ones(8, 6), torch.ones(4, 5)),
        (torch.ones(4, 8).double(), torch.ones(8, 6), None),
        (torch.ones(4, 8), torch.ones(8, 6).bfloat16(), None),
        (torch.ones(8), torch.ones(8), None),
    ],
)
def test_invalid_operands_are_refused(a: Tensor, b: Tensor, out: Tensor | None) -> None:
    with pytest.raises(ValueError, match="not"):
        fp16_matmul()(a, b, out)


@needs_fp16
def test_out_of_memory() -> None:
    class Full:
        @staticmethod
        def matmul_fp16(*arguments: object) -> int:
            return 1

    with pytest.raises(MemoryError):
        Fp16Matmul(Full(), 1)(torch.ones(2, 2), torch.ones(2, 2))  # type: ignore[arg-type]


def test_a_cpu_without_fp16_instructions_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    monkeypatch.setattr(module, "c_library", lambda *names: pytest.fail("compiled"))
    assert fp16_library() == Unavailable("this CPU has no fp16 instructions")


def test_narrower_vectors_give_equal_results(tmp_path: Path) -> None:
    """The same file compiled without fp16 instructions, with conversions to fp32."""
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("needs a C compiler")
    place = resources.files("acorn.kernels") / "csrc"
    command = [
        *compiler,
        *FLAGS,
        *(str(place / name) for name in SOURCES["fp16"]),
        "-o",
        str(tmp_path / "plain.so"),
        "-lm",
    ]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs a C compiler that knows _Float16")
    plain = ctypes.CDLL(str(tmp_path / "plain.so"))
    declare(plain, "fp16")
    assert not has_fp16_instructions(plain)
    for a_transposed in (False, True):
        for b_transposed in (False, True):
            a, b = some(50, 300, transposed=a_transposed), some(300, 90, transposed=b_transposed, seed=1)
            ours = Fp16Matmul(plain, 2)(a, b)
            assert error(ours, a, b) < 0.003
            bias = 10 * some(90, seed=2)
            assert torch.equal(Fp16Matmul(plain, 2)(a, b, bias=bias, relu=True), (ours + bias).relu())
