"""Figures of generated answers beside the expected ones.

Exact match compares the texts. Normalized match ignores differences that do not make another answer: Unicode's
compatibility forms (NFKC: full-width letters, ligatures, no-break spaces), case, and the amount of white space. Unlike
SQuAD's it does not ignore punctuation, accents and articles: in a date, a number, a query or a name they matter. An
answer that did not end by itself never matches, because the user would get more text than the answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from acorn.counting import counted
from acorn.errors import InputError

FORM: Final = "NFKC"


@dataclass(frozen=True)
class Answer:
    """A generated answer.

    Attributes:
        prompt: the prompt as text for people.
        expected: the answer in the data.
        text: the generated text, without the token that ended it.
        ended: whether it ended by itself, not because of a limit.
    """

    prompt: str
    expected: str
    text: str
    ended: bool


@dataclass(frozen=True)
class ScoredAnswer:
    """An answer, and whether it matches."""

    answer: Answer
    exact: bool
    normalized: bool

    @property
    def record(self) -> dict[str, Any]:
        """The answer and its matches as a JSON object."""
        return {**vars(self.answer), "exact": self.exact, "normalized": self.normalized}


def normalized(text: str) -> str:
    """`text` in Unicode's form NFKC, with folded case, one space for each run of white space, and none at the ends."""
    # Twice, because the result of case folding may not be in this form.
    return " ".join(unicodedata.normalize(FORM, unicodedata.normalize(FORM, text).casefold()).split())


def scored_answers(answers: Sequence[Answer], round_trip: Callable[[str], str]) -> list[ScoredAnswer]:
    """Compares each answer with the expected one.

    Args:
        round_trip: `decode(encode(text))` of the model's tokenizer. It is applied to the expected answer
            first, because a model whose tokenizer lowers case or drops accents cannot write another text.
    """
    scored = []
    for answer in answers:
        expected = round_trip(answer.expected)
        exact = answer.ended and answer.text == expected
        is_close = answer.ended and (exact or normalized(answer.text) == normalized(expected))
        scored.append(ScoredAnswer(answer, exact, is_close))
    return scored


def answer_figures(
    scored: Sequence[ScoredAnswer],
    round_trip: Callable[[str], str],
    *,
    task: str = "complete",
    answer_loss: float | None = None,
) -> dict[str, Any]:
    """Figures of generated answers.

    Args:
        scored: the result of `scored_answers`.
        round_trip: the same function.
        task: "chat" or "complete".
        answer_loss: nats per counted token of the expected answers, from scoring; None: not measured.

    Returns:
        `task`, `examples`, `answer_loss`, `exact_match`, `normalized_match`, `ended_rate` (shares of the examples),
        `notes`.

    Raises:
        InputError: there is no answer.
    """
    if not scored:
        raise InputError("There is no answer to score (0 examples).", fix="name data that holds examples with answers")
    total = len(scored)
    altered = sum(round_trip(one.answer.expected) != one.answer.expected for one in scored)
    notes = [] if answer_loss is not None else ["The loss of the expected answers was not measured."]
    if altered:
        notes.append(
            f"The tokenizer alters {counted(altered, 'expected answer')} of {total:,}, which "
            f"{'is' if altered == 1 else 'are'} compared as altered."
        )
    return {
        "task": task,
        "examples": total,
        "answer_loss": answer_loss,
        "exact_match": sum(one.exact for one in scored) / total,
        "normalized_match": sum(one.normalized for one in scored) / total,
        "ended_rate": sum(one.answer.ended for one in scored) / total,
        "notes": notes,
    }
