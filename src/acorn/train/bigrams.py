"""Bigram initialization: embedding and head are initialized from bigram counts of the training text.

Before its blocks contribute much, a network predicts from the last token alone: its logits are the head times that
token's normalized embedding. The best such prediction is log P(next | last) = log P(next) + PMI(last, next), where PMI,
pointwise mutual information, says how much more often a pair occurs than by chance. Training learns this table of pairs
first, which takes a good part of a short run. Here the pairs are counted, and a truncated singular value decomposition
factorizes the table into embedding and head (Levy and Goldberg 2014, "Neural word embedding as implicit matrix
factorization").
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
"""The largest number of tokens that are counted. In a longer text, blocks of BLOCK_TOKENS are spread evenly over it."""

MAX_RANK = 256
"""The largest number of channels for the pairs; more channels add less and less, and take longer to compute."""

POWER_ITERATIONS, OVERSAMPLES = 2, 8
"""Power iterations and additional vectors of the randomized decomposition (Halko et al. 2011); both help to separate
singular values that are close."""


@torch.no_grad()
def add_bigrams(model: GPT, tokens: TokenSequence, seed: int) -> None:
    """Adds the table of pairs to an untied model's embedding and head, whose initial values are small.

    Args:
        tokens: the training text.
        seed: for the random numbers of the decomposition.
    """
    assert model.head is not None, "bigrams are of a language model"
    V, C = model.head.weight.shape
    last, following, count = count_pairs(tokens, V)
    frequency = torch.from_numpy((np.bincount(following, count, V) + 1) / (count.sum() + V)).float()  # P(next) > 0
    rank = min(C - 1, V - 1, MAX_RANK)
    left, singular_values, right = decompose(association(last, following, count, V), rank, seed)
    left, right = left * singular_values.sqrt(), right * singular_values.sqrt()
    # Channel 0 is the same for every last token, and represents log P(next). It is as large as the rest of a row is on
    # average over the text. So the final norm, which scales up short rows, scales none of them by more than 1.4.
    constant = (frequency @ left.norm(dim=1)).clamp(min=1e-3)
    length = frequency @ (constant**2 + left.square().sum(1)).sqrt()
    log_frequency = frequency.log() - frequency.log().mean()
    undo_norm = length / C**0.5  # the final norm scales every row to length sqrt(C)
    for weight, first, others in (
        (model.token_embedding.weight, constant.expand(V), left),
        (model.head.weight, log_frequency / constant * undo_norm, right * undo_norm),
    ):
        weight[:, 0] += first.to(weight)
        weight[:, 1 : 1 + rank] += others.to(weight)


def count_pairs(tokens: TokenSequence, vocab_size: int) -> tuple[Ints, Ints, Ints]:
    """The distinct pairs of consecutive tokens and their counts, (last, following, count), sorted."""
    keys = np.concatenate([block[:-1] * vocab_size + block[1:] for block in _blocks(tokens)])
    pairs, count = np.unique(keys, return_counts=True)
    return pairs // vocab_size, pairs % vocab_size, count


def association(last: Ints, following: Ints, count: Ints, vocab_size: int) -> Tensor:
    """Positive PMI of each pair in nats, discounted for rare pairs: (V, V), sparse.

    Two rare tokens that occur together by chance have a large PMI, which means little. So each value is multiplied with
    n / (n + 1) for the count of the pair, and again for the count of the rarer token (Pantel and Lin 2002, "Discovering
    word senses from text").
    """
    last_counts, following_counts = np.bincount(last, count, vocab_size), np.bincount(following, count, vocab_size)
    pmi = np.log(count * count.sum() / (last_counts[last] * following_counts[following]))
    rarer = np.minimum(last_counts[last], following_counts[following])
    values = pmi.clip(min=0) * count / (count + 1) * rarer / (rarer + 1)
    row_starts = np.searchsorted(last, np.arange(vocab_size + 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(row_starts),
            torch.from_numpy(following),
            torch.from_numpy(values).float(),
            (vocab_size, vocab_size),
            check_invariants=True,
        )


def decompose(table: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Truncated SVD of a sparse matrix (V, V): vectors (V, rank), singular values (rank), vectors (V, rank)."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        left, values, right = torch.svd_lowrank(table, q=min(rank + OVERSAMPLES, table.size(0)), niter=POWER_ITERATIONS)
    return left[:, :rank], values[:rank], right[:, :rank]


def _blocks(tokens: TokenSequence) -> Iterator[Ints]:
    """All tokens as one block, or blocks spread evenly over them."""
    n = len(tokens)
    begins = (
        [0] if n <= MAX_TOKENS else np.linspace(0, n - BLOCK_TOKENS, MAX_TOKENS // BLOCK_TOKENS).astype(int).tolist()
    )
    for begin in begins:
        yield tokens[begin : n if n <= MAX_TOKENS else begin + BLOCK_TOKENS].astype(np.int64)
