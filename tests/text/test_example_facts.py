from __future__ import annotations

import pytest

from acorn.errors import InputError
from acorn.text.example_facts import MANY_LABELS, check_labels, has_lists, labels_of, told_facts
from acorn.text.examples import Chat, Completion, Example, Labeled, Message, Role, Tagged


def labeled(*pairs: tuple[str, str | tuple[str, ...] | float]) -> list[Example]:
    return [Labeled(text, label, f"line {number}") for number, (text, label) in enumerate(pairs, start=1)]


def chat(*roles: Role) -> Chat:
    return Chat(tuple(Message(role, f"{role}{n}", role == "assistant") for n, role in enumerate(roles)), "a")


def test_labels_are_sorted_integers_by_value() -> None:
    examples = labeled(("a", "10"), ("b", "9"), ("c", "b"), ("d", "a"), ("e", "-1"), ("f", "9"))
    assert labels_of("classify", examples) == ("-1", "9", "10", "a", "b")
    assert labels_of("classify", examples, ("b", "a")) == ("b", "a")
    assert labels_of("classify", labeled(("a", ("y", "x")), ("b", ()))) == ("x", "y")
    assert labels_of("tag", [Tagged(("a", "b"), ("O", "B"), "")]) == ("B", "O")
    assert labels_of("regress", labeled(("a", 1.0))) == ()
    assert labels_of("complete", [Completion("a", "b", "")]) == ()


def test_lists_and_single_labels_do_not_mix() -> None:
    with pytest.raises(InputError, match="Some labels are lists, and others are not") as error:
        has_lists(labeled(("a", "x"), ("b", ("x", "y"))))
    assert error.value.where == "line 2 has a list; line 1 has none"
    assert has_lists(labeled(("a", ()), ("b", ("x", "y"))))
    assert not has_lists(labeled(("a", "x"), ("b", "y")))
    assert not has_lists([Completion("a", "b", "")])


def test_labels_that_cannot_be_learned_are_refused() -> None:
    with pytest.raises(InputError, match="All examples have the same label, 'x'"):
        check_labels("classify", labeled(("a", "x"), ("b", "x")), "train")
    with pytest.raises(InputError, match="No example has a label"):
        check_labels("classify", labeled(("a", ()), ("b", ())), "train")
    with pytest.raises(InputError, match="The only example has one tag, 'O'"):
        check_labels("tag", [Tagged(("a",), ("O",), "")], "train")
    with pytest.raises(InputError, match=r"All 2 examples have the label 1\.5"):
        check_labels("regress", labeled(("a", 1.5), ("b", 1.5)), "train")
    with pytest.raises(InputError, match=r"The only example has the label 1\.5"):
        check_labels("regress", labeled(("a", 1.5)), "train")
    check_labels("classify", labeled(("a", ("x",)), ("b", ())), "train")
    check_labels("classify", labeled(("a", "x"), ("b", "y")), "train")
    check_labels("regress", labeled(("a", 1.5), ("b", 2.5)), "train")
    check_labels("complete", [Completion("a", "b", "")], "train")


def test_a_label_for_each_example_is_another_column() -> None:
    many = MANY_LABELS + 1
    own = labeled(*((f"text {n}", f"id {n}") for n in range(many)))
    with pytest.raises(InputError, match=f"Each of the {many} examples has a label of its own, as 'id 0'") as error:
        check_labels("classify", own, "train: a.csv")
    assert error.value.where == "train: a.csv"
    assert "finetune.label_field" in error.value.fix
    check_labels("classify", own[:MANY_LABELS], "train")
    nearly = [*own, *labeled(("more", "id 0"))]
    check_labels("classify", nearly, "train")
    labels = labels_of("classify", nearly)
    assert list(told_facts("classify", {"train": nearly}, labels)) == [
        f"warning: there are {many} labels for {many + 1} examples of training. If the labels stand in another column, "
        "name it in finetune.label_field."
    ]


def test_conversations_of_an_unusual_order_are_counted() -> None:
    usual = [chat("system", "user", "assistant", "user", "assistant")] * 3
    assert list(told_facts("chat", {"train": usual}, ())) == []
    unusual = [
        chat("assistant", "user"),
        chat("user", "user", "assistant"),
        chat("user", "assistant", "system", "assistant"),
    ]
    assert list(told_facts("chat", {"train": [*usual, *unusual]}, ())) == [
        "train: of 6 conversations, in 1 the assistant speaks first; in 2 one role speaks twice in a row; in 1 the "
        "last message has no answer, so that it is not learned from; in 1 a system message is not the first. "
        "They are kept as they are."
    ]


def test_conflicting_labels_are_counted_with_their_first_places() -> None:
    examples = labeled(("a", "x"), ("b", "x"), ("a", "y"), ("a", "x"), ("c", "y"))
    assert list(told_facts("classify", {"train": examples}, ("x", "y"))) == [
        "warning: train: 1 input of 3 has conflicting labels (the first: line 1 and line 3). They are kept."
    ]
    assert list(told_facts("regress", {"train": labeled(("a", 1.0), ("a", 2.0), ("b", 1.0), ("b", 3.0))}, ())) == [
        "warning: train: 2 inputs of 2 have conflicting labels (the first: line 1 and line 2). They are kept."
    ]
    tagged = [Tagged(("a",), ("O",), "line 1"), Tagged(("a",), ("B",), "line 2")]
    assert "conflicting tags" in next(iter(told_facts("tag", {"train": tagged}, ("O", "B"))))
    several_answers = [Completion("a", "b", ""), Completion("a", "c", "")]
    assert list(told_facts("complete", {"train": several_answers}, ())) == []


def test_labels_of_nearly_one_spelling_are_named() -> None:
    examples = labeled(*((f"{n} {label}", label) for n in range(3) for label in ("Spam", "spam", "ham", "1", "1.0")))
    labels = labels_of("classify", examples)
    assert list(told_facts("classify", {"train": examples}, labels)) == [
        "warning: labels that differ in spelling alone are different labels: '1' (3), '1.0' (3).",
        "warning: labels that differ in spelling alone are different labels: 'Spam' (3), 'spam' (3).",
    ]


def test_labels_that_a_side_lacks_are_named() -> None:
    sides = {"train": labeled(("a", "x"), ("b", "y"), ("c", "y")), "valid": labeled(("d", "y"))}
    assert list(told_facts("classify", sides, ("x", "y", "z"))) == [
        "warning: train has no example of the labels 'z'.",
        "valid has no example of 1 label: 'x'.",
    ]
