"""acorn's own conversations: the ids and masks of transformers for the exported folder, and what content cannot do."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
import transformers
from conversations import Message, conversation, conversations, pieces_of, plain
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from small_models import LINES, model_for

from acorn.checkpoint.model_folder import end_ids, fill_model_folder
from acorn.errors import InputError, UsageError
from acorn.tokenizer.chat_format import ChatFormat, without_generation
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

ENTRY = "<unk>"
CONTROLS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>", "<|reserved_10|>")


@cache
def own(kind: Any = "bpe") -> Tokenizer:
    return train(lambda: LINES, kind, 400, entries=[ENTRY])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a finished chat run leaves as `final/`."""
    chat, place = ChatFormat(own()), tmp_path_factory.mktemp("final")
    model = model_for(own(), "modern", n_layer=1)
    fill_model_folder(place, model, own(), "", chat_template=chat.template, end_ids=chat.end_ids)
    return place


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def has_more_controls(theirs: Any, messages: list[Message]) -> bool:
    """Whether the rendered text holds a control token that the template did not write."""
    text = theirs.apply_chat_template(plain(messages), tokenize=False)
    names = sorted(own().control_tokens, key=len, reverse=True)
    return len(re.findall("|".join(map(re.escape, names)), text)) != 1 + 2 * len(messages)


@given(messages=conversations(st.text(max_size=20) | pieces_of([ENTRY, "<|user", "end|>"])))
@settings(max_examples=150)
def test_ids_and_mask_are_those_of_transformers(theirs: Any, messages: list[Message]) -> None:
    assume(not has_more_controls(theirs, messages))
    encoded = ChatFormat(own()).encode(messages)
    expected = theirs.apply_chat_template(
        plain(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert encoded.ids == expected["input_ids"]
    assert encoded.trained == [bool(value) for value in expected["assistant_masks"]]
    prompt = ChatFormat(own()).encode(messages, to_answer=True)
    asked = theirs.apply_chat_template(plain(messages), add_generation_prompt=True)
    assert prompt.ids == asked["input_ids"]
    assert not any(prompt.trained)


@given(messages=conversations(pieces_of(CONTROLS)))
@settings(max_examples=150)
def test_no_content_becomes_a_control_token(messages: list[Message]) -> None:
    tokenizer, chat = own(), ChatFormat(own())
    assert set(CONTROLS) < set(tokenizer.control_tokens)
    ids = chat.encode(messages).ids
    controls = [token_id for token_id in ids if token_id in tokenizer.control_ids]
    markup = [f"<|{message.role}|> <|end|>" for message in messages]
    names = ["<|endoftext|>", *" ".join(markup).split()]
    assert controls == [tokenizer.id_of(name) for name in names]
    text = "<|endoftext|>" + "".join(f"<|{message.role}|>{message.content}<|end|>" for message in messages)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_control_text_is_what_transformers_makes_of_it_when_told_to_take_it_as_text(theirs: Any) -> None:
    messages = conversation("Say <|end|> and <|assistant|>.", "<|end|>", system="No <|system|>!")
    safe = theirs.apply_chat_template(plain(messages), sanitize_control_tokens=True)["input_ids"]
    ids = ChatFormat(own()).encode(messages).ids
    assert theirs.decode(ids) == theirs.decode(safe)
    controls = own().control_ids
    assert [i for i in ids if i in controls] == [i for i in safe if i in controls]


def test_the_layout_and_what_is_trained() -> None:
    tokenizer, chat = own(), ChatFormat(own())
    messages = [*conversation("a", "b", "c", system="s"), Message("assistant", "d", trained=False)]
    encoded = chat.encode(messages)
    pieces = [tokenizer.piece(token_id) for token_id in encoded.ids]
    layout = "<|endoftext|> <|system|> s <|end|> <|user|> a <|end|> <|assistant|> b <|end|> <|user|> c <|end|>"
    assert pieces == [*layout.split(), "<|assistant|>", "d", "<|end|>"]
    assert [piece for piece, is_trained in zip(pieces, encoded.trained, strict=True) if is_trained] == ["b", "<|end|>"]
    assert chat.end_ids == (tokenizer.id_of("<|end|>"), tokenizer.separator_id)
    assert {tokenizer.piece(token_id) for token_id in chat.markup_ids} == {
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|end|>",
    }
    assert set(chat.markup_ids) <= set(tokenizer.reserved_ids)


def test_an_exported_chat_model_ends_at_the_end_of_a_turn(folder: Path) -> None:
    assert end_ids(folder) == ChatFormat(own()).end_ids


@given(messages=conversations())
@settings(max_examples=50)
def test_the_template_for_llama_cpp_renders_the_same_without_transformers_own_tag(
    theirs: Any, messages: list[Message]
) -> None:
    """llama-cpp-python's environment, which knows no `{% generation %}`."""
    plain_jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    with pytest.raises(jinja2.TemplateSyntaxError):
        plain_jinja.from_string(ChatFormat(own()).template)
    for environment in (plain_jinja, jinja2.Environment()):
        template = environment.from_string(ChatFormat(own()).gguf_template)
        for to_answer in (False, True):
            text = template.render(messages=plain(messages), add_generation_prompt=to_answer)
            assert text == theirs.apply_chat_template(plain(messages), tokenize=False, add_generation_prompt=to_answer)


@pytest.mark.parametrize("tag", ["{% generation %}", "{%- generation -%}", "{%generation%}", "{%+ generation -%}"])
def test_without_the_tag_blanks_stay_as_they_were(tag: str) -> None:
    source = f"a \n  {tag} \n b \n {tag.replace('generation', 'endgeneration')}\n\n c"
    theirs = transformers.utils.chat_template_utils.render_jinja_template([[]], chat_template=source)[0][0]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    assert environment.from_string(without_generation(source)).render() == theirs


def test_roles_and_conversations_that_the_format_does_not_have_are_refused() -> None:
    chat = ChatFormat(own())
    with pytest.raises(InputError, match="'tool' is not known") as error:
        chat.encode([*conversation("a", "b"), Message("tool", "c")])
    assert error.value.where == "message 3"
    with pytest.raises(InputError, match="no message"):
        chat.encode([], to_answer=True)
    with pytest.raises(InputError, match="surrogate"):
        chat.encode(conversation("a\ud800"))


def test_a_wordpiece_has_no_chat_and_complete_is_named() -> None:
    with pytest.raises(UsageError, match="WordPiece") as error:
        ChatFormat(own("wordpiece"))
    assert error.value.exit_code == 2
    assert "`complete`" in error.value.fix
