"""Work for a GPU, recorded once and then started with a single call.

A GPU does a small product in a few microseconds, and the CPU takes ten times as long to ask for it. A CUDA graph holds
all that was asked for, and is replayed whole (docs/performance.md has what that gains).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before recording: compilers and libraries set themselves up in the first ones (PyTorch's notes on graphs)."""


class Recorded:
    """A function of CUDA tensors, recorded for the shapes of `inputs`.

    What is replayed reads and writes the same memory each time: `inputs` are copied to where they were first, and the
    result stays valid only until the next call.

    Args:
        function: takes tensors, returns a tensor, and never waits for the GPU. It is called WARM_UP + 1 times here.
        inputs: what it is called with.
    """

    def __init__(self, function: Callable[..., Tensor], *inputs: Tensor) -> None:
        self._inputs = tuple(value.clone() for value in inputs)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.random.fork_rng([torch.cuda.current_device()]):  # the first replay draws the first random numbers
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    function(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(self._graph):
                self._result = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's result; `inputs` may be on the CPU."""
        for ours, theirs in zip(self._inputs, inputs, strict=True):
            ours.copy_(theirs, non_blocking=True)
        self._graph.replay()
        return self._result
