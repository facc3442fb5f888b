from __future__ import annotations

import hashlib
from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from acorn.text.example_sides import groups_of, held_out_inputs, input_digest
from acorn.text.examples import Chat, Completion, Labeled, Message, Tagged

USER, ANSWER, OTHER = Message("user", "a", False), Message("assistant", "b", True), Message("assistant", "c", True)


def digest(name: object) -> bytes:
    return hashlib.blake2b(repr(name).encode(), digest_size=16).digest()


def test_the_input_alone_makes_the_digest() -> None:
    assert input_digest(Labeled("a", "x", "1")) == input_digest(Labeled("a", 2.0, "2"))
    assert input_digest(Labeled("a", "x", "")) != input_digest(Labeled("b", "x", ""))
    assert input_digest(Labeled("a", "x", "")) == hashlib.blake2b(b"a", digest_size=16).digest()  # as of text
    assert input_digest(Completion("a", "b", "")) == input_digest(Completion("a", "c", ""))
    assert input_digest(Tagged(("a", "b"), ("O", "O"), "")) == input_digest(Tagged(("a", "b"), ("B", "O"), ""))
    assert input_digest(Tagged(("a b",), ("O",), "")) != input_digest(Tagged(("a", "b"), ("O", "O"), ""))
    assert input_digest(Chat((USER, ANSWER), "")) == input_digest(Chat((USER, OTHER, USER), ""))
    assert input_digest(Chat((USER, ANSWER, USER, ANSWER), "")) == input_digest(Chat((USER, ANSWER, USER, OTHER), ""))
    assert input_digest(Chat((USER, ANSWER, USER, ANSWER), "")) != input_digest(Chat((USER, OTHER, USER, ANSWER), ""))


def test_where_the_input_says_nothing_the_whole_example_counts() -> None:
    assert input_digest(Completion("", "a", "")) != input_digest(Completion("", "b", ""))
    system = Message("system", "Be kind.", False)
    assert input_digest(Chat((system, ANSWER), "")) != input_digest(Chat((system, OTHER), ""))


def test_groups_are_labels_and_tags() -> None:
    assert groups_of(Labeled("a", "x", "")) == ("x",)
    assert groups_of(Labeled("a", ("x", "y"), "")) == ("x", "y")
    assert groups_of(Tagged(("a", "b"), ("O", "O"), "")) == {"O"}
    assert len(groups_of(Labeled("a", 1.0, ""))) == len(groups_of(Completion("a", "b", ""))) == 1


inputs_of_one_label = st.dictionaries(st.integers(0, 999).map(digest), st.sampled_from("abcd").map(lambda g: {g}))


@given(inputs=inputs_of_one_label, share=st.sampled_from([0.01, 0.1, 0.5, 0.99]))
def test_each_label_is_on_both_sides_where_it_has_two_inputs(inputs: dict[bytes, set[Hashable]], share: float) -> None:
    held_out = held_out_inputs(inputs, share)
    assert held_out <= inputs.keys()
    for label in set().union(*inputs.values()):
        members = {one for one, labels in inputs.items() if label in labels}
        assert members - held_out  # training has every label
        assert bool(members & held_out) == (len(members) > 1)


@given(inputs=inputs_of_one_label, share=st.sampled_from([0.01, 0.1, 0.5, 0.99]))
def test_only_a_label_that_lacks_a_side_moves_an_input_and_only_one(
    inputs: dict[bytes, set[Hashable]], share: float
) -> None:
    by_digest = {one for one in inputs if int.from_bytes(one[:8], "big") < int(share * 2**64)}
    moved = by_digest ^ held_out_inputs(inputs, share)
    for label in set().union(*inputs.values()):
        members = {one for one, labels in inputs.items() if label in labels}
        lacks = not members & by_digest or not members - by_digest
        assert len(members & moved) <= lacks


inputs_of_labels = st.dictionaries(
    st.integers(0, 99).map(digest), st.sets(st.sampled_from("abcdef"), max_size=4), max_size=12
)


@given(inputs=inputs_of_labels, share=st.sampled_from([0.01, 0.5, 0.99]))
def test_with_several_labels_an_input_training_still_has_most(inputs: dict[bytes, set[Hashable]], share: float) -> None:
    """An input of several labels cannot always be on both sides for each; no label's inputs are all moved away."""
    held_out = held_out_inputs(inputs, share)
    for label in set().union(*inputs.values()):
        assert {one for one, labels in inputs.items() if label in labels} - held_out


@given(inputs=inputs_of_labels, order=st.randoms(use_true_random=False))
def test_neighbours_do_not_count_by_their_order(inputs: dict[bytes, set[Hashable]], order: object) -> None:
    shuffled = list(inputs.items())
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert held_out_inputs(dict(shuffled), 0.3) == held_out_inputs(inputs, 0.3)


def test_a_large_group_is_split_in_time_that_grows_with_it() -> None:
    inputs: dict[bytes, set[Hashable]] = {digest(number): {0} for number in range(5_000)}
    assert len(held_out_inputs(inputs, 1e-12)) == 1
    assert len(held_out_inputs(inputs, 1 - 1e-12)) == len(inputs) - 1
    assert 400 < len(held_out_inputs(inputs, 0.1)) < 600
