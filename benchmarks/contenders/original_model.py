"""The program that acorn is derived from, reimplemented: a GPT of 2022 as in a tutorial.

fp32, no torch.compile, the whole attention matrix and all logits in memory, no key/value cache, no schedule.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    def __init__(self, n_embd: int, n_head: int, block_size: int, dropout: float) -> None:
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        self.projection = nn.Linear(n_embd, n_embd)
        self.weight_dropout = nn.Dropout(dropout)
        self.register_buffer("mask", torch.ones(block_size, block_size).tril().bool())

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.n_head, width // self.n_head)
        q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value))
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.n_head)
        scores = scores.masked_fill(~self.mask[:length, :length], float("-inf"))
        weights = self.weight_dropout(scores.softmax(-1))
        return self.projection((weights @ v).transpose(1, 2).reshape(batch, length, width))


class OriginalBlock(nn.Module):
    def __init__(self, n_embd: int, n_head: int, block_size: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(n_embd)
        self.attention = SelfAttention(n_embd, n_head, block_size, dropout)
        self.mlp_norm = nn.LayerNorm(n_embd)
        self.up = nn.Linear(n_embd, 4 * n_embd)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(4 * n_embd, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(self.dropout(F.relu(self.up(self.mlp_norm(x)))))


class OriginalModel(nn.Module):
    def __init__(
        self, *, vocab_size: int, n_layer: int, n_head: int, n_embd: int, block_size: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.block_size = block_size
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.blocks = nn.ModuleList(OriginalBlock(n_embd, n_head, block_size, dropout) for _ in range(n_layer))
        self.norm = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab_size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary)."""
        x = self.token_embedding(ids) + self.position_embedding(torch.arange(ids.size(1), device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self(ids).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(self, ids: Tensor, n_new: int) -> Tensor:
        """Greedy generation, recomputing the whole text for every token."""
        for _ in range(n_new):
            logits = self(ids[:, -self.block_size :])[:, -1]
            ids = torch.cat((ids, logits.argmax(-1, keepdim=True)), dim=1)
        return ids
