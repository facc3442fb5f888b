"""The key/value cache: keys and values of earlier tokens, so that decoding computes only the new token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from acorn.config import ModelConfig
from acorn.model.ops import arange_like


class KVCache:
    """Keys and values of up to `length` tokens for each of `batch` sequences, which may have unequal lengths.

    Attributes:
        keys: (n_layer, B, K, length, D).
        values: the same.
        lengths: tokens that each sequence has in the cache (B,), on the CPU. Setting one to 0 empties the sequence.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (config.n_layer, batch, config.kv_heads, length, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch, dtype=torch.long)
        self._indices = torch.arange(length, device=device)  # (length,)

    def narrow(self, first: int, count: int) -> KVCache:
        """The sequences `first .. first + count - 1` as a cache of their own, in the same memory."""
        part = object.__new__(KVCache)
        part.keys, part.values = self.keys.narrow(1, first, count), self.values.narrow(1, first, count)
        part.lengths, part._indices = self.lengths.narrow(0, first, count), self._indices
        return part

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.lengths.max())

    @property
    def is_even(self) -> bool:
        """Whether all sequences have the same length."""
        return bool((self.lengths == self.lengths[0]).all())

    def positions(self, tokens: int) -> Tensor:
        """Positions of the next `tokens` of each sequence: (T,) if all have the same length, else (B, T).

        Raises:
            ValueError: the cache is too short for them.
        """
        if self.longest + tokens > self.keys.size(3):
            raise ValueError(f"{self.longest + tokens} tokens are more than the cache's {self.keys.size(3)}")
        if self.is_even:
            return self._indices[self.longest : self.longest + tokens]
        return self.lengths[:, None].to(self._indices) + self._indices[:tokens]

    def mask(self, tokens: int) -> Tensor | None:
        """Which keys the next `tokens` queries may attend to: bool, broadcastable to (B, H, T, S); None: causal."""
        if self.is_even and (self.longest == 0 or tokens == 1):
            return None
        key = self._indices[: self.longest + tokens]  # (S,)
        query = self.positions(tokens)[..., None]  # (T, 1) or (B, T, 1)
        return key <= query if query.dim() == 2 else (key <= query)[:, None]

    def layer(self, number: int, positions: Tensor) -> LayerCache:
        """The cache of one layer, which stores the next tokens at `positions`."""
        return LayerCache(self.keys[number], self.values[number], positions, self.longest)

    def advance(self, tokens: int) -> None:
        """Adds `tokens` to every sequence's length, after every layer has appended them."""
        self.lengths += tokens


class LayerCache(NamedTuple):
    """Keys and values of one layer, each (B, K, length, D), and where the next tokens go, as in `KVCache`."""

    keys: Tensor
    values: Tensor
    positions: Tensor
    longest: int

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores keys and values (B, K, T, D) of the next T tokens; returns those of all tokens so far.

        Of a sequence that is shorter than the longest, the rest is of no meaning; `KVCache.mask` hides it.
        """
        end = self.longest + keys.size(2)
        for kept, new in ((self.keys, keys), (self.values, values)):
            if self.positions.dim() == 1:
                kept[:, :, self.longest : end] = new
            else:
                rows = arange_like(0, len(kept), like=self.positions)[:, None]  # (B, 1)
                kept[rows, :, self.positions] = new.transpose(1, 2).to(kept.dtype)  # (B, T, K, D)
        return self.keys[:, :, :end].to(keys.dtype), self.values[:, :, :end].to(values.dtype)
