"""Examples as token ids: what is learned where, and what becomes of long ones."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import LINES

from acorn.data.examples import (
    ChatEncoder,
    CompletionEncoder,
    LabelEncoder,
    class_values,
    encode_side,
    label_scale,
    resolved_overlong,
    scaled_values,
    several_values,
)
from acorn.errors import InputError, UsageError
from acorn.text.examples import Chat, Completion, Labeled, Message
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.completion_format import CompletionFormat
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


class Notes:
    """A progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def at(self, *progress: object) -> None: ...

    def end(self, task: str) -> None: ...


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: LINES, "bpe", 320)


def asked(*contents: str, trained: bool = True) -> Chat:
    roles = ("user", "assistant")
    return Chat(tuple(Message(roles[n % 2], text, trained) for n, text in enumerate(contents)), "chats.jsonl, line 1")


def test_a_completion_learns_the_answer_and_its_end(tokenizer: Tokenizer) -> None:
    """Each counted row predicts the next id; joined to the last one read, they spell completion and separator."""
    (example,) = CompletionEncoder(CompletionFormat(tokenizer)).encode(
        [Completion("The oak", " stood", "a.csv, line 2")]
    )
    assert tokenizer.decode(example.ids[: example.rows[0] + 1]) == "The oak"
    assert tokenizer.decode(example.values) == " stood"
    assert example.values[-1] == tokenizer.separator_id
    assert list(example.ids[example.rows[1:]]) == list(example.values[:-1])
    (all_of_it,) = CompletionEncoder(CompletionFormat(tokenizer), True).encode([Completion("The oak", " stood", "")])
    assert tokenizer.decode(all_of_it.values) == "The oak stood"
    assert len(all_of_it.rows) == len(all_of_it.ids)


def test_a_chat_learns_its_answers_and_their_ends(tokenizer: Tokenizer) -> None:
    format = ChatFormat(tokenizer)
    (example,) = ChatEncoder(format).encode([asked("Who?", "An oak.", "And then?", "It grew.")])
    assert tokenizer.decode(example.values, skip_special_tokens=False) == "An oak.<|end|>It grew.<|end|>"
    assert np.diff(example.rows).max() > 1, "the turn between them is not learned"


def test_labels_are_said_at_the_last_token(tokenizer: Tokenizer) -> None:
    text = LabelText(tokenizer)
    first, second = Labeled("An acorn fell", "b", ""), Labeled("It grew", ("c", "a"), "")
    (example,) = LabelEncoder(text, class_values(["a", "b"])).encode([first])
    assert (list(example.rows), list(example.values)) == ([len(example.ids) - 1], [1])
    assert list(example.ids) == text.encode("An acorn fell")[0]
    (example,) = LabelEncoder(text, several_values(["a", "b", "c"])).encode([second])
    assert example.values.tolist() == [[1.0, 0.0, 1.0]]
    (example,) = LabelEncoder(text, scaled_values(4.0)).encode([Labeled("It grew", 2.0, "")])
    assert (example.values.dtype, example.values.tolist()) == (np.float32, [[0.5]])


@pytest.mark.parametrize("values", [[3.0, -5.0, 4.0], [1e-30, 3e-30], [1e300, -1e300], [0.0, 0.0]])
def test_the_scale_of_values_is_a_power_of_two_near_their_size(values: list[float]) -> None:
    scale = label_scale([Labeled("", value, "") for value in values])
    assert np.frexp(scale)[0] == 0.5
    size = np.sqrt(np.mean((np.array(values) / scale) ** 2))
    assert 0.7 < size < 1.42 or not any(values)


def test_long_examples_are_refused_by_default(tokenizer: Tokenizer) -> None:
    """The place, the length and the ways out are named."""
    encoder = CompletionEncoder(CompletionFormat(tokenizer))
    with pytest.raises(InputError, match="tokens, more than the context of 8") as refused:
        encode_side("train", [Completion("The old oak stood where", " paths", "a.csv, line 7")], encoder, 8, "refuse")
    assert refused.value.where == "a.csv, line 7"
    assert "drop or cut_prompt" in (refused.value.fix or "")


def test_dropped_examples_are_counted_and_said(tokenizer: Tokenizer) -> None:
    notes = Notes()
    examples = [Completion("a", "b", ""), Completion("The old oak stood where the paths", "b", "")]
    side = encode_side("train", examples, CompletionEncoder(CompletionFormat(tokenizer)), 6, "drop", notes)
    assert (side.examples, side.dropped, side.cut) == (examples[:1], 1, 0)
    assert notes.notes[0].startswith("train: 1 example of 2 longer than the context of 6 tokens")
    with pytest.raises(InputError, match="none of 1 example fits"):
        encode_side("train", examples[1:], CompletionEncoder(CompletionFormat(tokenizer)), 6, "drop")


def test_a_cut_prompt_keeps_its_end_its_start_token_and_the_whole_answer(tokenizer: Tokenizer) -> None:
    encoder, notes = CompletionEncoder(CompletionFormat(tokenizer)), Notes()
    example = Completion("The old oak stood where the three paths met", " and grew", "a.csv, line 1")
    (whole,) = encoder.encode([example])
    side = encode_side("valid", [example], encoder, len(whole.ids) - 3, "cut_prompt", notes)
    (cut,) = side.tokens
    assert (len(cut.ids), side.cut, side.dropped) == (len(whole.ids) - 3, 1, 0)
    assert list(cut.ids) == [whole.ids[0], *whole.ids[4:]]
    assert list(cut.values) == list(whole.values)
    assert list(cut.ids[cut.rows]) == list(whole.ids[whole.rows])
    assert "cut at the beginning" in notes.notes[0]
    with pytest.raises(InputError, match="never cut"):
        encode_side("valid", [example], encoder, len(whole.values) - 1, "cut_prompt")
    smallest = encode_side("valid", [example], encoder, len(whole.values), "cut_prompt").tokens[0]
    assert list(smallest.values) == list(whole.values)


def test_a_cut_chat_loses_its_first_turns_whole(tokenizer: Tokenizer) -> None:
    encoder = ChatEncoder(ChatFormat(tokenizer))
    chat = asked("Who was it?", "An oak.", "And then?", "It grew.")
    system = Chat((Message("system", "Be short", False), *chat.messages), "")
    without = Chat((system.messages[0], *chat.messages[2:]), "")
    (wanted,) = encoder.encode([without])
    (cut,) = encode_side("train", [system], encoder, len(wanted.ids), "cut_prompt").tokens
    assert list(cut.ids) == list(wanted.ids)
    with pytest.raises(InputError, match="never cut"):
        encode_side("train", [system], encoder, len(wanted.ids) - 1, "cut_prompt")


def test_a_cut_text_keeps_its_beginning(tokenizer: Tokenizer) -> None:
    encoder, example = LabelEncoder(LabelText(tokenizer), class_values(["a"])), Labeled("The old oak stood", "a", "")
    (whole,) = encoder.encode([example])
    (cut,) = encode_side("train", [example], encoder, 4, "cut").tokens
    assert list(cut.ids) == list(whole.ids[:4])
    assert list(cut.rows) == [3]


def test_what_can_be_done_depends_on_the_task() -> None:
    assert [resolved_overlong(task, "auto") for task in ("chat", "complete", "classify", "regress")] == [
        *("refuse", "refuse"),
        *("cut", "cut"),
    ]
    for task, asked_for in (("chat", "cut"), ("classify", "cut_prompt")):
        with pytest.raises(UsageError, match="too long"):
            resolved_overlong(task, asked_for)


@pytest.mark.parametrize("kind", ["complete", "classify"])
def test_a_text_that_cannot_be_encoded_is_named(tokenizer: Tokenizer, kind: str) -> None:
    if kind == "complete":
        encoder, example = CompletionEncoder(CompletionFormat(tokenizer)), Completion("\ud800", "b", "a.jsonl, line 9")
    else:
        encoder, example = (
            LabelEncoder(LabelText(tokenizer), class_values(["a"])),
            Labeled("\ud800", "a", "a.jsonl, line 9"),
        )
    with pytest.raises(InputError) as refused:
        encode_side("train", [example], encoder, 8, "drop")
    assert "a.jsonl, line 9" in (refused.value.where or "")


def test_an_example_without_a_trained_token_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="No token of this example"):
        encode_side("train", [asked("Who?", "I.", trained=False)], ChatEncoder(ChatFormat(tokenizer)), 64, "refuse")
