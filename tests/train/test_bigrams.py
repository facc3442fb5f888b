"""Bigram initialization of embedding and head."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from acorn.config import ModelConfig
from acorn.config_files import load_run_config
from acorn.data.token_shards import TokenSequence
from acorn.model.gpt import GPT
from acorn.report.metrics_log import read_metrics
from acorn.run_folder import RunFolder
from acorn.train import bigrams
from acorn.train.bigrams import add_bigrams, association, count_pairs, decompose


def sequence(folder: Path, tokens: np.ndarray, shards: int = 2) -> TokenSequence:
    files = []
    for number, part in enumerate(np.array_split(tokens.astype("<u2"), shards)):
        files.append(folder / f"{number}.bin")
        part.tofile(files[-1])
    return TokenSequence(files, np.dtype("<u2"))


def markov(n: int, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A text in which each token has a few likely successors, and the table P(next | last) that generated it."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.full(vocab_size, 0.1), size=vocab_size)
    ends, draws = table.cumsum(1), rng.random(n)
    text = np.zeros(n, np.int64)
    for place in range(1, n):
        text[place] = min(np.searchsorted(ends[text[place - 1]], draws[place]), vocab_size - 1)
    return text, table


def loss_of(model: GPT, text: np.ndarray) -> float:
    windows = torch.from_numpy(text[: 65 * 200]).view(200, 65)
    with torch.no_grad():
        loss_sum, count = model(windows[:, :-1], windows[:, 1:])
    return float(loss_sum) / int(count)


def begun(tokens: TokenSequence, **settings) -> GPT:
    model = GPT(ModelConfig(n_layer=2, block_size=64, dropout=0.0, tied=False, **settings))
    model.init_weights(0)
    add_bigrams(model, tokens, 0)
    return model


def test_pairs_are_counted_across_shards(tmp_path: Path) -> None:
    text = np.random.default_rng(0).integers(0, 9, size=500)
    found = count_pairs(sequence(tmp_path, text, shards=3), 9)
    expected = sorted(Counter(pairwise(text.tolist())).items())
    assert [((a, b), n) for a, b, n in zip(*(x.tolist() for x in found), strict=True)] == expected


def test_of_a_long_text_only_blocks_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They reach from its beginning to its end; no pair spans two of them."""
    monkeypatch.setattr(bigrams, "MAX_TOKENS", 30)
    monkeypatch.setattr(bigrams, "BLOCK_TOKENS", 10)
    last, following, count = count_pairs(sequence(tmp_path, np.arange(101)), 101)
    assert sorted(last.tolist()) == [*range(9), *range(45, 54), *range(91, 100)]
    assert np.array_equal(following, last + 1)
    assert count.tolist() == [1] * 27


def test_association_is_positive_pmi() -> None:
    """Calculated by hand: 0 is followed by 1 in six of eight cases, 1 always by 0, and so on."""
    last, following = np.array([0, 0, 1, 2]), np.array([0, 1, 0, 2])
    count = np.array([2, 6, 6, 2])
    table = association(last, following, count, 4).to_dense()
    expected = torch.zeros(4, 4)
    expected[0, 1] = math.log(6 * 16 / (8 * 6)) * 6 / 7 * 6 / 7
    expected[1, 0] = math.log(6 * 16 / (6 * 8)) * 6 / 7 * 6 / 7
    expected[2, 2] = math.log(2 * 16 / (2 * 2)) * 2 / 3 * 2 / 3  # (0, 0) is rarer than chance, 3 does not occur
    torch.testing.assert_close(table, expected)


def test_decomposition_equals_numpys() -> None:
    rng = np.random.default_rng(0)
    dense = (rng.standard_normal((40, 12)) @ rng.standard_normal((12, 40))).astype(np.float32)
    table = torch.from_numpy(dense).to_sparse_csr()
    left, sizes, right = decompose(table, 12, seed=0)
    np.testing.assert_allclose(sizes.numpy(), np.linalg.svd(dense)[1][:12], rtol=1e-4)
    np.testing.assert_allclose((left * sizes @ right.T).numpy(), dense, atol=1e-3)


@pytest.mark.parametrize("architecture", ["modern", "gpt2"])
def test_the_first_loss_is_near_the_conditional_entropy(architecture: str, tmp_path: Path) -> None:
    """Of a Markov chain, whose lowest loss is its conditional entropy, and without pairs its entropy."""
    text, table = markov(60_000, 96)
    model = begun(sequence(tmp_path, text), architecture=architecture, n_embd=96, vocab_size=96)
    share = np.bincount(text, minlength=96) / len(text)
    entropy = -(share * np.log(share)).sum()
    conditional = -(share[:, None] * table * np.log(table.clip(1e-300))).sum()
    loss = loss_of(model, text)
    assert conditional < loss < entropy - 0.6 * (entropy - conditional)


def test_few_channels_keep_the_largest_singular_values(tmp_path: Path) -> None:
    """The kind of the last of twelve kinds of tokens determines that of the next one: a table of about rank 12."""
    kinds, members = markov(200_000, 12)[0], np.random.default_rng(0).integers(0, 20, size=200_000)
    text = kinds * 20 + members  # 240 entries
    losses = {n: loss_of(begun(sequence(tmp_path, text), n_embd=n, vocab_size=240), text) for n in (4, 16, 64)}
    entropy = math.log(20) - sum(p * math.log(p) for p in np.bincount(kinds) / len(kinds) if p)
    assert losses[16] < losses[4] - 0.2
    assert losses[16] < entropy - 0.4
    assert losses[64] == pytest.approx(losses[16], abs=0.1)  # the remainder is noise


def test_it_is_deterministic_and_leaves_the_random_state_alone(tmp_path: Path) -> None:
    text = sequence(tmp_path, markov(5_000, 50)[0])
    one, other = (begun(text, n_embd=32, vocab_size=50) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    before = torch.random.get_rng_state()
    add_bigrams(one, text, 1)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("text", "vocab_size"),
    [([5] * 40, 700), (list(range(40)), 700), ([0, 1] * 20, 2), (list(range(12)) * 4, 12)],
    ids=["one token", "no pair twice", "two entries", "fewer entries than channels"],
)
def test_unusual_texts_give_finite_weights(text: list[int], vocab_size: int, tmp_path: Path) -> None:
    """It adds to the random values: rows of tokens that do not occur stay distinct for later training."""
    model = begun(sequence(tmp_path, np.array(text)), n_embd=32, vocab_size=vocab_size)
    for weight in (model.token_embedding.weight, model.head.weight):
        assert weight.isfinite().all()
        assert weight.std() < 10
        assert len(torch.unique(weight, dim=0)) == vocab_size


def test_a_run_with_bigram_initialization(tmp_path: Path, run_tiny) -> None:
    """Its first loss is well below that of random weights, and its config records the choice."""
    first, said = {}, {}
    for name, settings in {
        "random": ["model.tied=false"],
        "bigrams": ["model.tied=false", "train.init=bigrams"],
        "auto": ["model.tied=false", "train.init=auto"],
        "auto, tied": ["train.init=auto"],
    }.items():
        out = tmp_path / name
        run_tiny(out, *settings, "train.steps=1")
        first[name] = next(r["loss"] for r in read_metrics(out / "metrics.jsonl") if r["split"] == "train")
        said[name] = load_run_config(RunFolder(out).config).train.init
    assert said == {"random": "random", "bigrams": "bigrams", "auto": "bigrams", "auto, tied": "random"}
    assert first["random"] == pytest.approx(math.log(320), abs=0.1)
    assert first["bigrams"] < 0.6 * first["random"]
    assert first["auto"] == first["bigrams"]
    assert first["auto, tied"] == pytest.approx(math.log(320), abs=0.1)
