from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from acorn.text.digests import DigestSet, digest_limit, digest_of


@given(st.lists(st.integers(0, 40)))
def test_a_digest_set_behaves_like_a_set(numbers: list[int]) -> None:
    ours, reference = DigestSet(), set[int]()
    for number in numbers:
        digest = digest_of(b"%d" % number)
        assert (digest in ours) == (number in reference)
        assert ours.add(digest) == (number not in reference)
        reference.add(number)
    assert len(ours) == len(reference)


def test_digests_with_the_same_slot_are_distinguished() -> None:
    same_slot = [bytes([first]) + bytes(14) + b"\x07" for first in range(1, 50)]
    ours = DigestSet()
    assert all(ours.add(digest) for digest in same_slot)
    assert all(digest in ours for digest in same_slot)
    assert bytes([50]) + bytes(14) + b"\x07" not in ours


def test_nothing_is_lost_when_the_table_grows() -> None:
    digests = [digest_of(b"%d" % number) for number in range(50_000)]
    ours = DigestSet()
    assert all(ours.add(digest) for digest in digests)
    assert not any(ours.add(digest) for digest in digests)
    assert len(ours) == len(digests)


def test_digests_of_one_side_of_a_split_are_spread_over_the_table() -> None:
    """Digests with similar first halves, which decide the split, are spread: few probes find a free slot."""
    ours = DigestSet()
    for number in range(20_000):
        ours.add(bytes(8) + hashlib.sha256(b"%d" % number).digest()[:8])
    slots = [bytes(ours._slots[at : at + 16]) for at in range(0, len(ours._slots), 16)]
    runs = "".join("x" if any(slot) else " " for slot in slots).split()
    assert max(map(len, runs)) < 200


def test_the_digest_is_blake2b() -> None:
    assert digest_of(b"acorn") == hashlib.blake2b(b"acorn", digest_size=16).digest()


def test_the_share_of_digests_below_the_limit() -> None:
    digests = [digest_of(b"%d" % number) for number in range(10_000)]
    # The count is binomial: mean 1000, standard deviation 30.
    assert 850 < sum(digest < digest_limit(0.1) for digest in digests) < 1150
    assert digest_limit(0.1) < digest_limit(0.1 + 1e-12) < digest_limit(1 - 2**-53)
    assert bytes(16) > digest_limit(0)  # no digest is below a share of 0
