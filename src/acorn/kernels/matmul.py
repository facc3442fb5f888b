"""Matmuls of fp32 matrices, multiplied in fp16: for CPUs whose registers do that at twice the rate of fp32.

Not PyTorch's matmuls of fp16 tensors, which add up in fp32 on a CPU and are no faster. Inputs and results are fp32,
so nothing between two matmuls loses range or precision. See csrc/matmul_fp16.h.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from acorn.kernels.build import Unavailable, c_library
from acorn.runtime.device import Runtime


class Fp16Matmul:
    """a @ b, off by about 0.17 % of its size for random numbers (factors rounded to bf16: 0.24 %).

    Of 128 products that are added up in fp16, one that is much larger than the others rounds them, as its own factors'
    rounding would in bf16. The same for any number of threads. Numbers beyond 1e20 and what is not finite give NaN or
    infinity, and may give it to their neighbours, up to 11 rows and 63 columns away.

    Args:
        library: `fp16`, loaded.
        threads: that share the work.
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
        """a @ b, all in fp32 on the CPU.

        What is done to a result here takes less time than as an operation of its own: it is in the cache.

        Args:
            a: (M, K) or (n, M, K).
            b: (K, N) or (n, K, N).
            out: where to write it, its rows contiguous; None: a new tensor.
            add: to what is in `out`, instead of in its place.
            bias: (N), contiguous, added to every row.
            relu: negative results, with their bias, become 0.

        Raises:
            ValueError: they are not such matrices.
            MemoryError: there is none for the packed matrices, a few MB.
        """
        result = a.new_empty(*a.shape[:-1], b.size(-1)) if out is None else out
        tensors = (a, b, result)
        if any(x.dtype != torch.float32 or not x.is_cpu or x.dim() not in (2, 3) for x in tensors):
            raise ValueError(f"not matrices in fp32 on the CPU: {[(x.dtype, str(x.device), x.dim()) for x in tensors]}")
        if a.shape[:-2] != b.shape[:-2] or a.size(-1) != b.size(-2) or result.shape != (*a.shape[:-1], b.size(-1)):
            raise ValueError(f"shapes {[tuple(x.shape) for x in tensors]} are not those of a matmul")
        if not _is_dense(result):
            raise ValueError(f"a matmul is written row by row, not with strides of {result.stride()}")
        if bias is not None and not (
            bias.dtype == torch.float32 and bias.is_cpu and bias.shape == result.shape[-1:] and _is_dense(bias)
        ):
            raise ValueError(
                f"a bias of {tuple(bias.shape)} in {bias.dtype} is not one number in fp32 a column on the CPU"
            )
        if not result.numel():
            return result
        if not a.size(-1):  # of nothing, as of zeros
            a, b = a.new_zeros(*a.shape[:-1], 1), b.new_zeros(*b.shape[:-2], 1, b.size(-1))
        left, right, to = (x if x.dim() == 3 else x[None] for x in (_in_one_piece(a), _in_one_piece(b), result))
        failed = self.library.matmul_fp16(
            *(left.data_ptr(), *left.stride(), right.data_ptr(), *right.stride()),
            *(to.data_ptr(), to.stride(0), to.stride(1), *left.shape[:2], right.size(2), left.size(2)),
            *(add, None if bias is None else bias.data_ptr(), relu, self.threads),
        )
        if failed:
            raise MemoryError("no memory to pack matrices in")
        return result


def fp16_library() -> ctypes.CDLL | Unavailable:
    """Matmuls and attention in fp16, or why they are not used. Their `_Float16` is known to GCC 12 and Clang 15."""
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if not has.get("avx512_fp16"):
        return Unavailable("this CPU does not multiply fp16")
    library = c_library("fp16")
    if isinstance(library, Unavailable) or multiplies_fp16(library):
        return library
    return Unavailable("the C compiler does not know this CPU's fp16 instructions")


def multiplies_fp16(library: ctypes.CDLL) -> bool:
    """Whether it was compiled to instructions for fp16, instead of to conversions."""
    return bool(library.multiplies_fp16())


def fp16_matmul(runtime: Runtime) -> Fp16Matmul | None:
    """What multiplies fp32 matrices in fp16, where `runtime` does."""
    if not runtime.fp16_products:
        return None
    library = fp16_library()
    if isinstance(library, Unavailable):
        raise RuntimeError(f"this runtime was chosen where fp16 matmuls were to be had: {library.reason}")
    return Fp16Matmul(library, runtime.threads)


def _in_one_piece(x: Tensor) -> Tensor:
    """x where its rows or its columns are contiguous, else a copy."""
    return x if x.stride(-1) == 1 or x.stride(-2) == 1 else x.contiguous()


def _is_dense(x: Tensor) -> bool:
    """Whether its rows are contiguous."""
    return x.stride(-1) == 1 or x.size(-1) <= 1
