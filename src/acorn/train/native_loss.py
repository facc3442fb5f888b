"""The loss of the head on a CPU with a C compiler: softmax in C, products in fp16 or of factors that suit oneDNN."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from acorn.model.gpt import GPT, product_dtype
from acorn.model.loss import GROUP, LinearCrossEntropy, SoftmaxGradient
from acorn.runtime.c_library import TYPES, c_library
from acorn.runtime.device import Runtime
from acorn.runtime.fp16_product import Fp16Product


class NativeCrossEntropy(LinearCrossEntropy):
    """The same as LinearCrossEntropy, up to rounding, for less time.

    Args:
        library: native_loss.c, loaded.
        threads: that share the work.
        product: multiplies fp32 matrices; None: PyTorch does.
    """

    def __init__(self, library: ctypes.CDLL, threads: int, product: Fp16Product | None = None) -> None:
        super().__init__()
        self.softmax_gradient = NativeSoftmaxGradient(library, threads)
        self._library, self._threads, self._product = library, threads, product
        self.newest: Tensor | None = None
        """The newest forward pass's logits: an older one's backward pass would find these in its own logits' place."""

    def loss_sum(self, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """As LinearCrossEntropy.loss_sum."""
        in_fp32 = x.dtype == weight.dtype == product_dtype(x) == torch.float32
        if not in_fp32 or len(x) > GROUP["cpu"] or not weight.is_leaf:
            return super().loss_sum(x, weight, targets)
        total: Tensor = _InOneGroup.apply(x, weight, targets, self)
        return total

    def multiply(self, a: Tensor, b: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor:
        """As LinearCrossEntropy.multiply."""
        if self._product is None or a.dtype != torch.float32:
            return super().multiply(a, b, out, add=add)
        return self._product(a, b, out, add=add)

    def room_for_logits(self, n: int, weight: Tensor) -> Tensor:
        """As LinearCrossEntropy.room_for_logits."""
        self.newest = None  # or the old place would still be held
        self.newest = super().room_for_logits(n, weight)
        return self.newest

    def to_gradient(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As LinearCrossEntropy.to_gradient; all at once, since a row in fp32 stays in the cache."""
        return self.softmax_gradient(logits, targets)

    def weight_turned(self, weight: Tensor) -> Tensor:
        """As LinearCrossEntropy.weight_turned. In bf16, oneDNN is slow with a right factor whose rows lie apart."""
        return self._turned(weight.contiguous()) if weight.dtype == torch.bfloat16 else super().weight_turned(weight)

    def add_weight_gradient(self, sums: Tensor | None, grad_logits: Tensor, x: Tensor) -> Tensor:
        """As LinearCrossEntropy.add_weight_gradient; turned round, widened and added in one pass."""
        if x.dtype != torch.bfloat16:
            return super().add_weight_gradient(sums, grad_logits, x)
        product = self._turned(x.contiguous()) @ grad_logits  # (C, V)
        C, V = product.shape
        is_first = sums is None
        sums = x.new_empty(V, C, dtype=torch.float32) if sums is None else sums
        self._library.add_turned(product.data_ptr(), C, V, sums.data_ptr(), is_first, self._threads)
        return sums

    def _turned(self, x: Tensor) -> Tensor:
        """x (n, m) in bf16, contiguous, as (m, n)."""
        n, m = x.shape
        turned = x.new_empty(m, n)
        self._library.turn(x.data_ptr(), n, m, turned.data_ptr(), self._threads)
        return turned


class _InOneGroup(torch.autograd.Function):
    """The loss of tokens whose logits exist all at once, in fp32.

    The logits' gradient stays in its place until the backward pass, whose product adds the weight's gradient to that
    which it has. So there is no second tensor of the weight's size, which for few tokens is the largest of all.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, loss: NativeCrossEntropy) -> Tensor:
        logits = loss.room_for_logits(len(x), weight)
        loss.multiply(x, weight.T, out=logits)
        total = loss.to_gradient(logits, targets)
        ctx.save_for_backward(x, weight)
        ctx.rest = loss, logits
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        loss, grad_logits = ctx.rest
        if loss.newest is not grad_logits:
            raise RuntimeError("another forward pass took the logits' place before this one's backward pass")
        scale = grad_outputs[0]
        grad_x = loss.multiply(grad_logits, weight) * scale if ctx.needs_input_grad[0] else None
        if ctx.needs_input_grad[1]:
            weight.grad = loss.multiply(grad_logits.T, x * scale, weight.grad, add=weight.grad is not None)
        return grad_x, None, None, None


class NativeSoftmaxGradient(SoftmaxGradient):
    """The same as SoftmaxGradient, up to rounding, in a third of the time; a row that does not count becomes zero.

    Args:
        library: native_loss.c, loaded.
        threads: that share the rows.
    """

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        super().__init__()
        self._library, self._threads = library, threads

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As SoftmaxGradient.forward.

        Raises:
            IndexError: a target is not below V.
        """
        n, V = logits.shape
        if logits.dtype not in TYPES or not logits.is_contiguous():
            return super().forward(logits, targets)
        if n and targets.max() >= V:
            raise IndexError(f"target {int(targets.max())} is out of range: there are {V} logits")
        targets = targets.contiguous()
        losses, room = (torch.empty(size, dtype=torch.float32, device="cpu") for size in (n, self._threads * V))
        self._library.softmax_gradient(
            *(logits.data_ptr(), n, V, TYPES[logits.dtype], targets.data_ptr()),
            *(losses.data_ptr(), room.data_ptr(), self._threads),
        )
        return losses.sum()


def use_native_loss(model: GPT, runtime: Runtime, product: Fp16Product | None = None) -> None:
    """Lets `model` take its loss in C where that can be had, its products as `product` takes them."""
    library = native_loss_library(runtime.device)
    if not isinstance(library, str):
        model.head.cross_entropy = NativeCrossEntropy(library, runtime.threads, product)


def native_loss_library(device: str) -> ctypes.CDLL | str:
    """native_loss.c, compiled and loaded, or why it is not used."""
    if device != "cpu":
        return f"the model is on {device}, not on the CPU"
    library = c_library("acorn.train", "native_loss")
    if not isinstance(library, str):
        pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
        library.softmax_gradient.argtypes = [pointer, size, size, number, pointer, pointer, pointer, number]
        library.turn.argtypes = [pointer, size, size, pointer, number]
        library.add_turned.argtypes = [pointer, size, size, pointer, number, number]
        for function in (library.softmax_gradient, library.turn, library.add_turned):
            function.restype = None
    return library
