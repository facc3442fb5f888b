"""The key/value cache: keys and values of earlier tokens, so that decoding computes only the new token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from acorn.config import ModelConfig


class KVCache:
    """Keys and values of up to `length` tokens of `batch` sequences.

    Sequences of unequal length share a batch by padding on the left: `starts` says where each begins, and the padding
    before it is never attended to.

    Args:
        starts: position of each sequence's first token (B,); None: all begin at 0.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        starts: Tensor | None = None,
    ) -> None:
        shape = (config.n_layer, batch, config.kv_heads, length, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.starts = None if starts is None else starts.to(device)
        self._indices = torch.arange(length, device=device)  # (length,)
        self.position = 0

    def layer(self, number: int) -> LayerCache:
        """The cache of one layer."""
        return LayerCache(self.keys[number], self.values[number], self.position)

    def advance(self, tokens: int) -> None:
        """Moves the position forward by `tokens`, after every layer has appended them."""
        self.position += tokens

    def positions(self, positions: Tensor) -> Tensor:
        """Positions (T,) in the padded batch -> positions within each sequence, (T,) or (B, T)."""
        if self.starts is None:
            return positions
        return (positions[None, :] - self.starts[:, None]).clamp(min=0)

    def mask(self, tokens: int) -> Tensor | None:
        """Which keys the next `tokens` queries may attend to: bool, broadcastable to (B, H, T, S); None: causal."""
        if self.starts is None and (self.position == 0 or tokens == 1):
            return None
        key = self._indices[: self.position + tokens]  # (S,)
        query = key[self.position :, None]  # (T, 1)
        if self.starts is None:
            return key <= query
        # A padding query attends to itself: softmax over no key at all would give NaN.
        begun = (key >= self.starts[:, None, None]) | (key == query)  # (B, T, S)
        return ((key <= query) & begun)[:, None]


class LayerCache(NamedTuple):
    """Keys and values of one layer, each (B, K, length, D); those before `position` are filled."""

    keys: Tensor
    values: Tensor
    position: int

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores keys and values (B, K, T, D) of the next T tokens; returns those of all tokens so far."""
        end = self.position + keys.size(2)
        self.keys[:, :, self.position : end] = keys
        self.values[:, :, self.position : end] = values
        return self.keys[:, :, :end].to(keys.dtype), self.values[:, :, :end].to(values.dtype)
