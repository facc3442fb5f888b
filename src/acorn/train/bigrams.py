"""An embedding and a head that know, before the first step, which token follows which in the text.

While the blocks of a network add little, it predicts from the last token alone: its logits are the head times that
token's normed embedding. The best it can say then is log P(next | last) = log P(next) + PMI(last, next), where PMI,
pointwise mutual information, tells how much more often a pair occurs than its two tokens would by chance. Training
learns that table of pairs before all else, and takes a good part of a short run for it. Here the pairs are counted, and
the table is taken apart into embedding and head by a truncated singular value decomposition (Levy and Goldberg 2014,
"Neural word embedding as implicit matrix factorization").
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acorn.data.token_shards import TokenSequence
from acorn.model.gpt import GPT

Ints = NDArray[np.int64]

MAX_TOKENS, BLOCK_TOKENS = 2**22, 2**16
"""Tokens that are counted at the most, in blocks of so many that lie evenly over the text."""

MAX_RANK = 256
"""Channels that the pairs get at the most; what further ones would tell is ever less, and takes ever longer."""

POWER_ITERATIONS, OVERSAMPLES = 2, 8
"""Of the randomised decomposition (Halko et al. 2011), and the vectors it takes beyond those wanted; they tell near
singular values apart."""


@torch.no_grad()
def add_bigrams(model: GPT, tokens: TokenSequence, seed: int) -> None:
    """Adds the table of pairs to an untied model's embedding and head, which `init_weights` drew small.

    Args:
        tokens: of the training text.
        seed: of the decomposition's random numbers.
    """
    V, C = model.head.weight.shape
    last, following, count = count_pairs(tokens, V)
    share = torch.from_numpy((np.bincount(following, count, V) + 1) / (count.sum() + V)).float()  # P(next), never 0
    rank = min(C - 1, V - 1, MAX_RANK)
    left, sizes, right = decompose(association(last, following, count, V), rank, seed)
    left, right = left * sizes.sqrt(), right * sizes.sqrt()
    # Channel 0 is the same for every last token, and carries log P(next). It is as large as the rest of a row is on
    # average over the text: the norm would make much of rows that tell little, and so stretches none by more than 1.4.
    constant = (share @ left.norm(dim=1)).clamp(min=1e-3)
    length = share @ (constant**2 + left.square().sum(1)).sqrt()
    log_share = share.log() - share.log().mean()
    back = length / C**0.5  # the last norm makes every row sqrt(C) long
    for weight, first, others in (
        (model.token_embedding.weight, constant.expand(V), left),
        (model.head.weight, log_share / constant * back, right * back),
    ):
        weight[:, 0] += first.to(weight)
        weight[:, 1 : 1 + rank] += others.to(weight)


def count_pairs(tokens: TokenSequence, vocab_size: int) -> tuple[Ints, Ints, Ints]:
    """Which tokens follow which, and how often: (last, following, count), each pair once, in order."""
    keys = np.concatenate([block[:-1] * vocab_size + block[1:] for block in _blocks(tokens)])
    pairs, count = np.unique(keys, return_counts=True)
    return pairs // vocab_size, pairs % vocab_size, count


def association(last: Ints, following: Ints, count: Ints, vocab_size: int) -> Tensor:
    """Positive PMI of each pair in nats, less where it was seen seldom: (V, V), sparse.

    A chance meeting of two rare tokens has a large PMI and means little, so each is taken times n / (n + 1) for the
    pair's count and again for the rarer token's (Pantel and Lin 2002, "Discovering word senses from text").
    """
    of_last, of_following = np.bincount(last, count, vocab_size), np.bincount(following, count, vocab_size)
    pmi = np.log(count * count.sum() / (of_last[last] * of_following[following]))
    rarer = np.minimum(of_last[last], of_following[following])
    values = pmi.clip(min=0) * count / (count + 1) * rarer / (rarer + 1)
    begins = np.searchsorted(last, np.arange(vocab_size + 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(begins),
            torch.from_numpy(following),
            torch.from_numpy(values).float(),
            (vocab_size, vocab_size),
            check_invariants=True,
        )


def decompose(table: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest singular values of a sparse table (V, V), and their vectors: (V, rank), (rank), (V, rank)."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        left, sizes, right = torch.svd_lowrank(table, q=min(rank + OVERSAMPLES, table.size(0)), niter=POWER_ITERATIONS)
    return left[:, :rank], sizes[:rank], right[:, :rank]


def _blocks(tokens: TokenSequence) -> Iterator[Ints]:
    """All tokens in one, or blocks that lie evenly over them."""
    n = len(tokens)
    begins = (
        [0] if n <= MAX_TOKENS else np.linspace(0, n - BLOCK_TOKENS, MAX_TOKENS // BLOCK_TOKENS).astype(int).tolist()
    )
    for begin in begins:
        yield tokens[begin : n if n <= MAX_TOKENS else begin + BLOCK_TOKENS].astype(np.int64)
