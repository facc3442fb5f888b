"""Matmuls of fp32 matrices computed in fp16, for CPUs whose fp16 instructions have twice the throughput of fp32.

PyTorch's matmuls of fp16 tensors accumulate in fp32 on a CPU and are no faster. Here inputs and results are fp32, so
that only the matmuls lose precision. See csrc/matmul_fp16.h.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from acorn.kernels.build import Unavailable, c_library
from acorn.runtime.device import Runtime


class Fp16Matmul:
    """a @ b in fp16. For random matrices the error is smaller than with operands rounded to bf16.

    128 products are accumulated in fp16; one that is much larger than the others costs these precision. Results do
    not depend on the number of threads. Elements beyond 1e20 and non-finite ones give NaN or infinity, also in
    results up to 11 rows and 63 columns away.

    Args:
        library: the loaded library `fp16`.
        threads: number of threads.
    """

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self.library, self.threads = library, threads

    def __call__(
        self,
        a: Tensor,
        b: Tensor,
        out: Tensor | None = None,
        *,
        add: bool = False,
        bias: Tensor | None = None,
        relu: bool = False,
    ) -> Tensor:
        """a @ b of fp32 tensors on the CPU, with fused addition, bias and ReLU.

        Args:
            a: (M, K) or (n, M, K).
            b: (K, N) or (n, K, N).
            out: where the result is written, with contiguous rows; None: a new tensor.
            add: whether to add to `out` instead of overwriting it.
            bias: (N), contiguous, added to every row.
            relu: whether ReLU follows the bias.

        Raises:
            ValueError: wrong types, devices, shapes or strides.
            MemoryError: the workspace, a few MB, could not be allocated.
        """
        result = a.new_empty(*a.shape[:-1], b.size(-1)) if out is None else out
        tensors = (a, b, result)
        if any(x.dtype != torch.float32 or not x.is_cpu or x.dim() not in (2, 3) for x in tensors):
            raise ValueError(f"not fp32 matrices on the CPU: {[(x.dtype, str(x.device), x.dim()) for x in tensors]}")
        if a.shape[:-2] != b.shape[:-2] or a.size(-1) != b.size(-2) or result.shape != (*a.shape[:-1], b.size(-1)):
            raise ValueError(f"shapes {[tuple(x.shape) for x in tensors]} do not fit a matmul")
        if not _has_contiguous_rows(result):
            raise ValueError(f"out needs contiguous rows; its strides are {result.stride()}")
        if bias is not None and not (
            bias.dtype == torch.float32
            and bias.is_cpu
            and bias.shape == result.shape[-1:]
            and _has_contiguous_rows(bias)
        ):
            raise ValueError(
                f"bias is not contiguous fp32 with one element per column, on the CPU: {bias.shape}, {bias.dtype}"
            )
        if not result.numel():
            return result
        if not a.size(-1):  # an empty sum is zero
            a, b = a.new_zeros(*a.shape[:-1], 1), b.new_zeros(*b.shape[:-2], 1, b.size(-1))
        left, right, to = (
            x if x.dim() == 3 else x[None]
            for x in (_with_contiguous_rows_or_columns(a), _with_contiguous_rows_or_columns(b), result)
        )
        failed = self.library.matmul_fp16(
            *(left.data_ptr(), *left.stride(), right.data_ptr(), *right.stride()),
            *(to.data_ptr(), to.stride(0), to.stride(1), *left.shape[:2], right.size(2), left.size(2)),
            *(add, None if bias is None else bias.data_ptr(), relu, self.threads),
        )
        if failed:
            raise MemoryError("no memory for the workspace of a matmul")
        return result


def fp16_library() -> ctypes.CDLL | Unavailable:
    """The library with fp16 matmuls and attention, or why it is unavailable. GCC 12 and Clang 15 support `_Float16`."""
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if not has.get("avx512_fp16"):
        return Unavailable("this CPU has no fp16 instructions")
    library = c_library("fp16")
    if isinstance(library, Unavailable) or has_fp16_instructions(library):
        return library
    return Unavailable("the C compiler does not support this CPU's fp16 instructions")


def has_fp16_instructions(library: ctypes.CDLL) -> bool:
    """Whether the library was compiled to fp16 instructions, instead of conversions to fp32 and back."""
    return bool(library.has_fp16_instructions())


def fp16_matmul(runtime: Runtime) -> Fp16Matmul | None:
    """The fp16 matmul of fp32 matrices, if `runtime` uses it."""
    if not runtime.fp16_matmuls:
        return None
    library = fp16_library()
    if isinstance(library, Unavailable):
        raise RuntimeError(f"this runtime uses fp16 matmuls, which are unavailable: {library.reason}")
    return Fp16Matmul(library, runtime.threads)


def _with_contiguous_rows_or_columns(x: Tensor) -> Tensor:
    """x if its rows or its columns are contiguous, else a contiguous copy."""
    return x if x.stride(-1) == 1 or x.stride(-2) == 1 else x.contiguous()


def _has_contiguous_rows(x: Tensor) -> bool:
    return x.stride(-1) == 1 or x.size(-1) <= 1
