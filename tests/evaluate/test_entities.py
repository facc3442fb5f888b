from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.errors import InputError
from acorn.evaluate.entities import Entity, entities, tag_baselines, tag_figures
from acorn.text.examples import Tagged

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-PER", "S-LOC")
sentences = st.lists(
    st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=9), min_size=1, max_size=5
)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", []),
        ("B-PER I-PER O B-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("I-PER I-PER I-LOC", [("PER", 0, 2), ("LOC", 2, 3)]),  # I- after O or another type begins one (IOB1)
        ("O I-PER O I-PER", [("PER", 1, 2), ("PER", 3, 4)]),
        ("B-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),
        ("B-PER E-PER I-PER S-PER", [("PER", 0, 2), ("PER", 2, 3), ("PER", 3, 4)]),
        ("B-a-b I-a-b", [("a-b", 0, 2)]),
        ("B I O", [("_", 0, 2)]),
    ],
)
def test_spans_of_tags(tags: str, spans: list[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == [Entity(*span) for span in spans]


def test_figures_counted_by_hand() -> None:
    """Of 3 entities 1 is found whole; of 3 predicted ones one is too short and one of the wrong type."""
    true = [["B-PER", "I-PER", "O"], ["B-LOC", "O", "B-PER"]]
    predicted = [["B-PER", "O", "O"], ["B-LOC", "O", "B-LOC"]]
    figures = tag_figures(true, predicted)
    assert figures["token_accuracy"] == 4 / 6
    assert (figures["examples"], figures["tokens"]) == (2, 6)
    assert [figures[f"entity_{name}"] for name in ("precision", "recall", "f1")] == [1 / 3] * 3
    assert figures["per_entity"]["LOC"] == {"precision": 1 / 2, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert figures["per_entity"]["PER"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}


def test_an_entity_does_not_go_on_into_the_next_sentence() -> None:
    assert tag_figures([["B-PER"], ["I-PER"]], [["B-PER"], ["I-PER"]])["per_entity"]["PER"]["support"] == 2


def test_undefined_figures_are_null_and_named() -> None:
    nothing = tag_figures([["O", "O"]], [["O", "O"]])
    assert (nothing["token_accuracy"], nothing["entity_f1"], nothing["entity_recall"]) == (1.0, None, None)
    assert "recall is undefined, and F1" in nothing["notes"][0]
    unused = tag_figures([["B-PER"]], [["O"]])
    assert (unused["entity_precision"], unused["entity_recall"], unused["entity_f1"]) == (None, 0.0, 0.0)
    speech = tag_figures([["NOUN", "VERB"]], [["NOUN", "NOUN"]])
    assert (speech["token_accuracy"], speech["entity_f1"], speech["per_entity"]) == (0.5, None, {})
    assert '"NOUN" and "VERB" are no tags of entities' in speech["notes"][0]


def test_sentences_must_match() -> None:
    with pytest.raises(ValueError, match="shorter"):
        tag_figures([["O", "O"]], [["O"]])
    with pytest.raises(InputError, match="0 examples"):
        tag_figures([], [])


@given(sentences)
def test_figures_are_json_without_nan_and_perfect_for_equal_tags(found: list[list[tuple[str, str]]]) -> None:
    true, predicted = ([[pair[side] for pair in sentence] for sentence in found] for side in (0, 1))
    json.dumps(tag_figures(true, predicted), allow_nan=False)
    same = tag_figures(true, true)
    assert same["token_accuracy"] == 1.0
    assert same["entity_f1"] in (1.0, None)
    assert tag_figures(predicted, true)["entity_f1"] == tag_figures(true, predicted)["entity_f1"]


@given(sentences)
def test_entities_are_the_longest_runs_of_a_type_between_marks(found: list[list[tuple[str, str]]]) -> None:
    for sentence in found:
        tags = [pair[0] for pair in sentence]
        spans = entities(tags)
        covered = [at for span in spans for at in range(span.start, span.end)]
        assert covered == [at for at, tag in enumerate(tags) if tag != "O"]
        for span in spans:
            inside = tags[span.start : span.end]
            assert {tag[2:] for tag in inside} == {span.type}
            assert not any(tag[0] in "BS" for tag in inside[1:])
            assert not any(tag[0] in "ES" for tag in inside[:-1])
        for one, next_one in itertools.pairwise(spans):
            if one.end == next_one.start and one.type == next_one.type:
                assert tags[one.end - 1][0] in "ES" or tags[next_one.start][0] in "BS"


def test_the_baseline_gives_each_word_its_most_frequent_tag() -> None:
    """By hand: of five words "Oak" is right, "Ann" is wrong (twice a person), the unseen "May" is wrong, two are O."""
    training = [
        Tagged(("Oak", "Ann", "runs"), ("B-TREE", "B-PER", "O"), ""),
        Tagged(("Ann", "sits", "by"), ("B-PER", "O", "O"), ""),
        Tagged(("Ann",), ("B-SHIP",), ""),
    ]
    scored = [Tagged(("Oak", "by", "Ann"), ("B-TREE", "O", "B-SHIP"), ""), Tagged(("May", "sits"), ("B-PER", "O"), "")]
    figures = tag_baselines(training, scored)["word_majority"]
    assert figures["token_accuracy"] == 3 / 5
    assert figures["entity_precision"] == 1 / 2
    assert figures["entity_recall"] == 1 / 3
