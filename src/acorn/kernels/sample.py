"""Native sampling: calls csrc/sample.c, which chooses the next tokens of a batch on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acorn.kernels.build import Unavailable, c_library
from acorn.kernels.prototypes import Sampling

NOT_FINITE, NOT_FINITE_AFTER_PENALTY = -1, -2
"""Values of sample.c's `enum result`, in place of a token."""


@dataclass(frozen=True)
class RowSettings:
    """How the next token of one sequence is chosen; the meaning is that of `generate.settings.SamplingSettings`.

    Attributes:
        seen: ids that the repetition penalty applies to; may be empty if there is none.
        draw: a random number from 0 to below 1.
    """

    seen: Sequence[int]
    draw: float
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    greedy: bool


class NativeSampler:
    """Samples with csrc/sample.c."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._workspace = torch.empty(0)

    def __call__(self, logits: Tensor, rows: Sequence[RowSettings], banned: Tensor) -> Tensor:
        """The next token of each row (B,), or NOT_FINITE or NOT_FINITE_AFTER_PENALTY.

        Args:
            logits: (B, V), fp32, on the CPU.
            banned: ids that are never chosen (n,).
        """
        logits, banned = logits.contiguous(), banned.contiguous()
        batch, entries = logits.shape
        threads = torch.get_num_threads()
        seen = [torch.tensor(row.seen, dtype=torch.long) for row in rows]  # kept alive until the call returns
        settings = (Sampling * batch)(
            *(
                Sampling(
                    ids.data_ptr(),
                    len(ids),
                    row.draw,
                    row.temperature,
                    row.top_p,
                    row.min_p,
                    row.repetition_penalty,
                    min(row.top_k, entries),
                    row.greedy,
                )
                for row, ids in zip(rows, seen, strict=True)
            )
        )
        floats = self._library.sample_workspace_floats(entries, threads)
        if self._workspace.numel() < floats:
            self._workspace = torch.empty(floats)
        tokens = torch.empty(batch, dtype=torch.long)
        self._library.sample(
            logits.data_ptr(),
            batch,
            entries,
            banned.data_ptr(),
            len(banned),
            ctypes.byref(settings),
            self._workspace.data_ptr(),
            threads,
            tokens.data_ptr(),
        )
        return tokens


def native_sampler() -> NativeSampler | Unavailable:
    """The native sampler, or why it is unavailable."""
    library = c_library("decode")
    return library if isinstance(library, Unavailable) else NativeSampler(library)
