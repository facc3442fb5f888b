"""Windows of a base model's text among the samples of finetuning."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acorn.data.replay import Replay, exact_share
from acorn.data.token_shards import TokenSequence


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenSequence:
    """The numbers below 100 as a text."""
    file: Path = tmp_path_factory.mktemp("text") / "a.bin"
    np.arange(100, dtype="<u2").tofile(file)
    return TokenSequence([file], np.dtype("<u2"))


def replay_of(tokens: TokenSequence, share: Fraction) -> Replay:
    return Replay(tokens, share, block_size=10, seed=7)


@given(st.integers(1, 99), st.integers(0, 10**9), st.integers(1, 200))
def test_each_batch_has_the_share(tokens: TokenSequence, hundredths: int, first: int, count: int) -> None:
    """As exact as whole samples allow, and exact over all samples up to any."""
    replay = replay_of(tokens, Fraction(hundredths, 100))
    windows = replay.windows(first, count)
    assert abs(len(windows) - count * hundredths / 100) < 1
    assert replay.before(100 * first) == hundredths * first


@given(st.integers(1, 99), st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_the_windows_do_not_depend_on_the_batches(tokens: TokenSequence, hundredths: int, sizes: list[int]) -> None:
    replay, place, found = replay_of(tokens, Fraction(hundredths, 100)), 0, []
    for size in sizes:
        found += list(replay.windows(place, size))
        place += size
    assert found == list(replay.windows(0, place))


def test_windows_are_text_and_each_is_read_once_an_epoch(tokens: TokenSequence) -> None:
    replay = replay_of(tokens, Fraction(1, 2))
    inputs, targets = replay.read(range(10), rollbacks=0)  # an epoch has ten
    assert ((targets - inputs) % 100 == 1).all()
    assert sorted(targets.flatten().tolist()) == list(range(100))
    assert torch.equal(replay.read(range(4, 6), rollbacks=0)[0], inputs[4:6])
    assert not torch.equal(replay.read(range(10), rollbacks=1)[0], inputs)


def test_a_share_is_the_number_that_is_written() -> None:
    assert exact_share(0.1) == Fraction(1, 10)
    assert exact_share(0.3) + exact_share(0.7) == 1
