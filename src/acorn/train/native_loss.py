"""The loss of the head on a CPU with a C compiler: softmax in C, products of the factors that suit oneDNN."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from acorn.model.gpt import GPT
from acorn.model.loss import GROUP, LinearCrossEntropy, SoftmaxGradient
from acorn.runtime.c_library import TYPES, c_library
from acorn.runtime.device import Runtime


class NativeCrossEntropy(LinearCrossEntropy):
    """The same as LinearCrossEntropy, up to rounding, for less time.

    Args:
        library: native_loss.c, loaded.
        threads: that share the work.
    """

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        super().__init__()
        self.softmax_gradient = NativeSoftmaxGradient(library, threads)
        self._library, self._threads = library, threads

    def with_gradients(
        self, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As LinearCrossEntropy.with_gradients.

        In bf16, oneDNN is slow with a right factor of 28,144 entries whose rows lie apart, and with a left factor that
        is turned round. So the weight is turned round once, and the activations instead of the logits.
        """
        if dtype != torch.bfloat16:
            return super().with_gradients(x, weight, targets, dtype)
        narrow = weight.to(dtype).contiguous()
        turned = self._turned(narrow)  # (C, V)
        total = x.new_zeros((), dtype=torch.float32)
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(narrow, dtype=torch.float32)
        group = GROUP["cpu"]
        for begin in range(0, x.size(0), group):
            part, wanted = x[begin : begin + group].to(dtype), targets[begin : begin + group]
            logits = part @ turned  # (group, V)
            total += self.softmax_gradient(logits, wanted)
            grad_x[begin : begin + group] = logits @ narrow
            self._add_turned(grad_weight, self._turned(part.contiguous()) @ logits, is_first=begin == 0)
            del logits  # before the next group's are made
        return total, grad_x, grad_weight

    def _turned(self, x: Tensor) -> Tensor:
        """x (n, m) in bf16, contiguous, as (m, n)."""
        n, m = x.shape
        turned = x.new_empty(m, n)
        self._library.turn(x.data_ptr(), n, m, turned.data_ptr(), self._threads)
        return turned

    def _add_turned(self, total: Tensor, x: Tensor, is_first: bool) -> None:
        """Adds x (n, m), in bf16, to `total` (m, n), in fp32, which holds nothing yet if `is_first`."""
        n, m = x.shape
        self._library.add_turned(x.data_ptr(), n, m, total.data_ptr(), is_first, self._threads)


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


def use_native_loss(model: GPT, runtime: Runtime) -> None:
    """Lets `model` take its loss in C where that can be had."""
    library = native_loss_library(runtime.device)
    if not isinstance(library, str):
        model.head.cross_entropy = NativeCrossEntropy(library, runtime.threads)


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
