"""Chooses the operations that a network is built with, for the device that it runs on."""

from __future__ import annotations

import functools

import torch

from acorn.kernels.cpu import cpu_ops
from acorn.kernels.gpu import cuda_parts, mps_parts
from acorn.model.loss import cross_entropy
from acorn.model.ops import PYTORCH_OPS, Ops
from acorn.runtime.device import Runtime


def training_ops(runtime: Runtime, *, in_place_gradients: bool) -> Ops:
    """The operations of a network that is trained on `runtime`.

    Args:
        in_place_gradients: in-place gradient accumulation: on a CPU, the backward of embeddings, fp16 linear layers
            and the head adds to `weight.grad` directly and returns no gradient to autograd. False if gradients are
            needed from autograd, for hooks or to exchange them between processes.
    """
    matmul_dtype = None if runtime.dtype == torch.float32 else runtime.dtype
    if runtime.device == "cpu":
        return cpu_ops(runtime, matmul_dtype, in_place_gradients)
    parts = (cuda_parts if runtime.device == "cuda" else mps_parts)(runtime.compile)
    return Ops(matmul_dtype=matmul_dtype, cross_entropy=functools.partial(cross_entropy, parts=parts))


def inference_ops(device: str) -> Ops:
    """The operations of a network for inference on a device of this kind: PyTorch's."""
    if device == "cuda":
        return Ops(cross_entropy=functools.partial(cross_entropy, parts=cuda_parts(compiled=False)))
    return PYTORCH_OPS
