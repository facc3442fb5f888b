"""The softmax and its gradient in C (softmax_gradient.c), where a CPU trains and a C compiler is at hand."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from acorn.model.gpt import GPT
from acorn.model.loss import SoftmaxGradient
from acorn.runtime.c_library import TYPES, c_library
from acorn.runtime.device import Runtime


class NativeSoftmaxGradient(SoftmaxGradient):
    """The same as SoftmaxGradient, up to rounding, in a third of the time.

    Args:
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
        losses = torch.empty(n)
        self._library.softmax_gradient(
            logits.data_ptr(), n, V, TYPES[logits.dtype], targets.data_ptr(), losses.data_ptr(), self._threads
        )
        return losses.sum()


def use_native_loss(model: GPT, runtime: Runtime) -> None:
    """Lets `model` take its loss in C where that can be had."""
    library = native_loss_library(runtime.device)
    if not isinstance(library, str):
        model.head.softmax_gradient = NativeSoftmaxGradient(library, runtime.threads)


def native_loss_library(device: str) -> ctypes.CDLL | str:
    """softmax_gradient.c, compiled and loaded, or why it is not used."""
    if device != "cpu":
        return f"the model is on {device}, not on the CPU"
    library = c_library("acorn.train", "softmax_gradient")
    if not isinstance(library, str):
        library.softmax_gradient.restype = None
        library.softmax_gradient.argtypes = [
            *(ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int32),
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32),
        ]
    return library
