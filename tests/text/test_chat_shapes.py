from __future__ import annotations

import json
from typing import Any

import pytest

from acorn.text.chat_shapes import to_chat, unread_keys
from acorn.text.examples import Chat, Message, Record, RowFault

ASK = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}


def chat(values: dict[str, Any], *, typed: bool = True) -> Chat:
    return to_chat(Record(values, "a.jsonl, line 1", typed), "prompt", "completion")


def turns(values: dict[str, Any], *, typed: bool = True) -> list[tuple[str, str, bool]]:
    return [(message.role, message.content, message.trained) for message in chat(values, typed=typed).messages]


EXPECTED = [("system", "Be kind.", False), ("user", "Hi", False), ("assistant", "Hello", True)]
SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    "values",
    [
        {"messages": [SYSTEM, ASK, ANSWER]},
        {"messages": [ASK, ANSWER], "system": "Be kind."},
        {"messages": [SYSTEM, ASK, ANSWER], "system": "Be kind."},
        {"messages": {"role": ["system", "user", "assistant"], "content": ["Be kind.", "Hi", "Hello"]}},
        {
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
            "system": "Be kind.",
        },
        {
            "conversations": [
                {"from": "system", "value": "Be kind."},
                {"from": "user", "value": "Hi"},
                {"from": "assistant", "value": "Hello"},
            ]
        },
        {"instruction": "Hi", "input": "", "output": "Hello", "system": "Be kind.", "history": None},
        {"instruction": "", "input": "Hi", "output": "Hello", "system": "Be kind.", "history": []},
        {"prompt": [SYSTEM, ASK], "completion": [ANSWER]},
        {"messages": None, "conversations": [SYSTEM, ASK, ANSWER]},
    ],
)
def test_one_conversation_in_every_shape(values: dict[str, Any]) -> None:
    assert turns(values) == EXPECTED


@pytest.mark.parametrize(
    "values",
    [
        {"messages": json.dumps([SYSTEM, ASK, ANSWER])},
        {"instruction": "Hi", "input": "", "output": "Hello", "system": "Be kind.", "history": ""},
        {"prompt": json.dumps([SYSTEM, ASK]), "completion": json.dumps([ANSWER])},
    ],
)
def test_a_csv_spells_lists_as_json(values: dict[str, Any]) -> None:
    assert turns(values, typed=False) == EXPECTED


def test_alpaca_joins_instruction_and_input_and_has_earlier_turns() -> None:
    values = {"instruction": "Translate.", "input": "Bonjour", "output": "Hello", "history": [["a", "b"], ["c", "d"]]}
    assert turns(values) == [
        ("user", "a", False),
        ("assistant", "b", True),
        ("user", "c", False),
        ("assistant", "d", True),
        ("user", "Translate.\n\nBonjour", False),
        ("assistant", "Hello", True),
    ]


def test_prompt_and_completion_of_text_are_one_exchange() -> None:
    assert turns({"prompt": "Hi", "completion": "Hello"}) == [("user", "Hi", False), ("assistant", "Hello", True)]


def test_answers_within_a_prompt_are_not_trained() -> None:
    prompt = [ASK, {**ANSWER, "content": "before"}, ASK]
    assert [trained for *_, trained in turns({"prompt": prompt, "completion": [ANSWER]})] == [False, False, False, True]


@pytest.mark.parametrize(
    "off", [{"train": False}, {"weight": 0}, {"train": 0, "weight": 0.0}, {"train": False, "weight": None}]
)
def test_an_answer_can_be_left_untrained(off: dict[str, Any]) -> None:
    messages = [{**ASK, "train": False}, {**ANSWER, **off}, ASK, {**ANSWER, "train": True, "weight": 1}]
    assert [trained for *_, trained in turns({"messages": messages})] == [False, False, False, True]


def test_who_speaks_after_whom_is_left_as_it_is() -> None:
    messages = [ANSWER, ASK, ASK, SYSTEM, ANSWER, ASK]
    assert [role for role, *_ in turns({"messages": messages})] == [message["role"] for message in messages]


def test_white_space_and_every_character_of_a_message_stay() -> None:
    content = " \n<|end|>\x00\u2028 é "
    assert chat({"messages": [ASK, {**ANSWER, "content": content}]}).messages[1] == Message("assistant", content, True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"messages": []}, "holds no message"),
        ({"messages": None}, "The column 'messages' is null, not a list."),
        ({"messages": "Hi"}, "The column 'messages' is text, not a list."),
        ({"messages": [ASK, "Hello"]}, "Message 2 is text, not an object"),
        ({"messages": [{"content": "Hi"}]}, "Message 1 has no role."),
        ({"messages": [{"role": "tool", "content": "3"}]}, "Message 1 has the role 'tool'; acorn knows system, user,"),
        ({"messages": [{"role": 1, "content": "3"}]}, "Message 1 has the role a number"),
        ({"messages": [ASK, {"role": "assistant", "content": None}]}, r"content of message 2 \(assistant\) is null"),
        ({"messages": [ASK, {"role": "assistant"}]}, r"content of message 2 \(assistant\) is null"),
        ({"messages": [ASK, {"role": "assistant", "content": ""}]}, r"content of message 2 \(assistant\) is empty"),
        ({"messages": [ASK, {"role": "assistant", "content": " \n"}]}, "is empty"),
        ({"messages": [{"role": "user", "content": ""}, ANSWER]}, r"content of message 1 \(user\) is empty"),
        ({"messages": [ASK, {"role": "assistant", "content": [{"type": "text"}]}]}, "is a list, not text"),
        ({"messages": [ASK, {**ANSWER, "tool_calls": [{}]}]}, "Message 2 calls a tool"),
        ({"messages": [ASK]}, "there is no answer to learn"),
        ({"messages": [SYSTEM]}, "there is no answer to learn"),
        ({"messages": [ASK, {**ANSWER, "train": False}]}, "No message is trained"),
        ({"messages": [ASK, {**ANSWER, "train": "no"}]}, "The train of message 2 is text, not true or false."),
        ({"messages": [ASK, {**ANSWER, "weight": 0.5}]}, "The weight of message 2 is 0.5, not true or false."),
        ({"messages": [{**ASK, "train": True}, ANSWER]}, "only an assistant's message can be trained"),
        ({"messages": [ASK, {**ANSWER, "train": True, "weight": 0}]}, "contradict each other"),
        ({"messages": [SYSTEM, ASK, ANSWER], "system": "Be rude."}, "different system messages"),
        ({"messages": [ASK, ANSWER], "system": 3}, "The column 'system' is a number, not text."),
        ({"messages": {"role": ["user"], "content": []}}, "lists that differ in length"),
        ({"instruction": " ", "input": None, "output": "x"}, "The column 'instruction' is empty."),
        ({"instruction": "x", "input": 3, "output": "x"}, "The column 'input' is a number, not text."),
        ({"instruction": "x"}, "There is no column 'output'."),
        ({"instruction": "x", "output": ""}, r"The answer \(column 'output'\) is empty."),
        ({"instruction": "x", "output": "y", "history": [["a"]]}, "Turn 1 of the column 'history' is not a pair"),
        (
            {"instruction": "x", "output": "y", "history": [["a", ""]]},
            "The answer of turn 1 of the column 'history' is",
        ),
        ({"prompt": [ASK], "completion": "Hello"}, "The column 'completion' is text, not a list."),
        ({"prompt": [ASK], "completion": [ASK]}, "there is no answer to learn"),
        ({"prompt": "Hi", "completion": ""}, r"The answer \(column 'completion'\) is empty."),
        ({"text": "Hi"}, "no column 'messages', 'conversations' or 'instruction', and no 'prompt'"),
    ],
)
def test_what_is_no_conversation_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(RowFault, match=words):
        chat(values)


def test_keys_of_messages_that_are_not_read_are_named() -> None:
    messages = [{**ASK, "name": "Ann", "tool_calls": None}, {**ANSWER, "id": 0}]
    record = Record({"messages": messages}, "a.jsonl, line 1")
    assert list(unread_keys(record)) == ["messages[].name", "messages[].id"]
    assert list(unread_keys(Record({"prompt": "Hi"}, "a.jsonl, line 1"))) == []
