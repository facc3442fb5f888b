"""Templates of other families: ids and masks are those of transformers, and what they cannot tell is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import pytest
import tokenizers
import transformers
from conversations import Message, conversation, conversations, pieces_of, plain, texts
from hypothesis import assume, given, settings
from other_models import style
from small_models import LINES

from acorn.errors import InputError, UsageError
from acorn.tokenizer.chat_format import TEMPLATE, ChatFormat, without_generation
from acorn.tokenizer.template_format import TemplateFormat, chat_format_of, named_tokens
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

# As the families document their formats. The names of tokens are theirs.
CHATML = """\
{% for message in messages %}
<|im_start|>{{ message.role }}
{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}
{% else %}{{ message.content }}<|im_end|>{% endif %}

{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""
LLAMA_3 = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}
    {%- else %}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
MISTRAL = """\
{{- bos_token }}
{%- set first = messages[0]['content'] + '\\n\\n' if messages[0]['role'] == 'system' else '' %}
{%- set turns = messages[1:] if first else messages %}
{%- for message in turns %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate: user, assistant, user, ...') }}
    {%- elif message['role'] == 'user' %}
        {{- '[INST] ' + (first if loop.first else '') + message['content'] + ' [/INST]' }}
    {%- else %}
        {{- ' ' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}
    {%- endif %}
{%- endfor %}"""


FAMILIES: dict[str, tuple[str, list[str], str]] = {
    "chatml": ("qwen3", [], CHATML),
    "llama-3": ("llama-3", ["<|start_header_id|>", "<|end_header_id|>"], LLAMA_3),
    "mistral": ("llama-2", [], MISTRAL),  # [INST] as text, as in its first models
    "mistral-v3": ("llama-2", ["[INST]", "[/INST]"], MISTRAL),
}


@cache
def files(family: str) -> tuple[str, dict[str, Any]]:
    """tokenizer.json and the content of tokenizer_config.json."""
    name, more, _ = FAMILIES[family]
    tokenizer_json, settings = style(name)
    backend = tokenizers.Tokenizer.from_str(tokenizer_json)
    backend.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in more])
    return backend.to_str(), {**settings, "tokenizer_class": "PreTrainedTokenizerFast"}


@cache
def format_of(family: str, template: str) -> TemplateFormat:
    tokenizer_json, settings = files(family)
    tokenizer = Tokenizer.from_json(tokenizer_json, as_it_is=True)
    return TemplateFormat(tokenizer, template, special_tokens=named_tokens(settings))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What transformers makes of each family's folder."""
    loaded = {}
    for family, (_, _, template) in FAMILIES.items():
        folder = tmp_path_factory.mktemp(family)
        tokenizer_json, settings = files(family)
        (folder / "tokenizer.json").write_text(tokenizer_json, "utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}), "utf-8")
        (folder / "chat_template.jinja").write_text(template, "utf-8")
        loaded[family] = transformers.AutoTokenizer.from_pretrained(folder)
    return loaded


def trained_text(encoding: TemplateFormat, messages: Sequence[Message]) -> list[str]:
    """The trained parts as text, control tokens spelled out."""
    encoded, parts, was = encoding.encode(messages), [], False
    for token_id, is_trained in zip(encoded.ids, encoded.trained, strict=True):
        if is_trained and not was:
            parts.append([])
        if is_trained:
            parts[-1].append(token_id)
        was = is_trained
    return [encoding.tokenizer.decode(part, skip_special_tokens=False) for part in parts]


@pytest.mark.parametrize("family", FAMILIES)
@given(messages=conversations())
@settings(max_examples=60)
def test_ids_and_mask_are_those_of_transformers(theirs: dict[str, Any], family: str, messages: list[Message]) -> None:
    ours = format_of(family, FAMILIES[family][2])
    assume(not any(name in message.content for name in ours.tokenizer.control_tokens for message in messages))
    encoded = ours.encode(messages)
    expected = theirs[family].apply_chat_template(
        plain(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert encoded.ids == expected["input_ids"]
    assert encoded.trained == [bool(value) for value in expected["assistant_masks"]]
    asked = theirs[family].apply_chat_template(plain(messages), add_generation_prompt=True)["input_ids"]
    prompt = ours.encode(messages, to_answer=True)
    assert prompt.ids == asked
    assert not any(prompt.trained)


@pytest.mark.parametrize("family", FAMILIES)
@given(messages=conversations())
@settings(max_examples=60)
def test_without_the_tag_the_mask_is_the_answers_and_their_ends(
    theirs: dict[str, Any], family: str, messages: list[Message]
) -> None:
    tagged, template = FAMILIES[family][2], without_generation(FAMILIES[family][2])
    ours = format_of(family, template)
    assume(not any(name in message.content for name in ours.tokenizer.control_tokens for message in messages))
    encoded, other = ours.encode(messages), format_of(family, tagged).encode(messages)
    expected = theirs[family].apply_chat_template(plain(messages), chat_template=template)["input_ids"]
    assert encoded.ids == expected == other.ids
    assert ours.end_ids == format_of(family, tagged).end_ids
    answers = [message.content for message in messages if message.role == "assistant"]
    end, lead = ours.tokenizer.piece(ours.end_ids[0]), " " if "mistral" in family else ""
    for part, answer in zip(trained_text(ours, messages), answers, strict=True):
        text = ours.tokenizer.normalize(answer.strip() if family == "llama-3" else answer)
        whole = (lead + text).replace("▁", " ") + end  # how SentencePiece's normalizer writes spaces
        # A token that is half header, half answer cannot be drawn; here none has more of an answer than line ends.
        assert whole.endswith(part)
        assert part.endswith(end)
        assert not whole.removesuffix(part).strip()


def test_what_is_trained_in_each_family() -> None:
    messages = conversation("The keeper?", "Won it.", "And?", "No.", system="Short.")
    parts = {
        "chatml": ["Won it.<|im_end|>", "No.<|im_end|>"],
        "llama-3": ["Won it.<|eot_id|>", "No.<|eot_id|>"],
        "mistral": ["Won it.</s>", "No.</s>"],
        "mistral-v3": ["Won it.</s>", "No.</s>"],
    }
    for family, expected in parts.items():
        for template in (FAMILIES[family][2], without_generation(FAMILIES[family][2])):
            ours = format_of(family, template)
            assert [part.strip() for part in trained_text(ours, messages)] == expected
            ends = {ours.tokenizer.piece(token_id) for token_id in ours.end_ids}
            assert expected[0].removeprefix("Won it.") in ends
            assert ours.tokenizer.separator in ends


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tag", [True, False])
@given(data=conversations(texts | pieces_of(["<|im_end|>", "<|eot_id|>", "</s>", "[/INST]", "<s>", "<|endoftext|>"])))
@settings(max_examples=60)
def test_no_content_becomes_a_control_token(family: str, tag: bool, data: list[Message]) -> None:
    template = FAMILIES[family][2]
    ours = format_of(family, template if tag else without_generation(template))
    # A cut-off name at a border may become whole with what the template writes beside it, in transformers too.
    harmless = [Message(message.role, "x") for message in data]
    encoded, expected = ours.encode(data), ours.encode(harmless)
    controls = ours.tokenizer.control_ids
    assert [i for i in encoded.ids if i in controls] == [i for i in expected.ids if i in controls]
    ends = [i for i, trained in zip(encoded.ids, encoded.trained, strict=True) if trained and i in controls]
    assert len(ends) == sum(message.role == "assistant" for message in data)


def test_control_text_is_kept_as_text() -> None:
    messages = conversation(" <|im_end|> or <|im_start|>assistant? ", "Say <|im_end|>", "x<|im_end|>")
    for template in (CHATML, without_generation(CHATML)):
        ours = format_of("chatml", template)
        text = ours.tokenizer.decode(ours.encode(messages).ids, skip_special_tokens=False)
        assert text.startswith("<|im_start|>user\n <|im_end|> or <|im_start|>assistant? <|im_end|>")
        assert trained_text(ours, messages) == ["Say <|im_end|><|im_end|>"]
    trimmed = format_of("llama-3", LLAMA_3)
    ids = trimmed.encode(conversation("  <|eot_id|>  ")).ids
    assert trimmed.tokenizer.decode(ids, skip_special_tokens=False).endswith("\n\n<|eot_id|><|eot_id|>")
    sentence_piece = format_of("mistral", MISTRAL)  # no space mark that nobody wrote around what is encoded apart
    ids = sentence_piece.encode(conversation("a</s>b")).ids
    assert sentence_piece.tokenizer.decode(ids) == "[INST] a</s>b [/INST]"


def test_a_normalizer_that_makes_a_control_token_of_other_letters() -> None:
    spec = json.loads(files("chatml")[0])
    spec["normalizer"] = {"type": "NFKC"}
    spec["added_tokens"] = [{**token, "normalized": True} for token in spec["added_tokens"]]
    ours = TemplateFormat(Tokenizer.from_json(json.dumps(spec), as_it_is=True), CHATML)
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in "<|im_end|>")
    assert ours.tokenizer.id_of("<|im_end|>") in ours.tokenizer.encode_prompt(wide)
    controls = [token_id for token_id in ours.encode(conversation(f" {wide} ")).ids if token_id in ours.markup_ids]
    assert [ours.tokenizer.piece(token_id) for token_id in controls] == ["<|im_start|>", "<|im_end|>"]


def test_a_template_that_takes_control_text_apart_is_refused() -> None:
    template = CHATML.replace("{{ message.content }}", "{{ message.content.split('_end')[0] }}")
    with pytest.raises(InputError, match="splits a message"):
        format_of("chatml", template).encode(conversation("a <|im_end|> b"))


@pytest.mark.parametrize("family", ["llama-3", "mistral"])
def test_the_beginning_is_there_once(family: str) -> None:
    """The template writes it, and the tokenizer's own post-processor would write it again."""
    ours = format_of(family, FAMILIES[family][2])
    (bos,) = ours.tokenizer.prompt_start
    assert ours.encode(conversation("a", "b")).ids.count(bos) == 1
    assert ours.encode(conversation("a"), to_answer=True).ids.count(bos) == 1


@pytest.mark.parametrize("template", [CHATML, without_generation(CHATML)])
def test_an_answer_that_is_not_to_be_trained_is_left_out(template: str) -> None:
    first, second, third, fourth = conversation("a", "b", "c", "d")
    messages = [first, Message("assistant", "b", trained=False), third, fourth]
    assert trained_text(format_of("chatml", template), messages) == ["d<|im_end|>"]
    assert trained_text(format_of("chatml", template), [first, second, third]) == ["b<|im_end|>"]


def test_answers_that_the_tag_does_not_mark_one_by_one_are_all_trained_or_refused() -> None:
    split = "{{ message.content[:1] }}{% endgeneration %}-{% generation %}{{ message.content[1:] }}<|im_end|>"
    template = CHATML.replace("{% generation %}{{ message.content }}<|im_end|>", "{% generation %}" + split)
    ours = format_of("chatml", template)
    messages = conversation("a", "bc", "d", "ef")
    assert trained_text(ours, messages) == ["b", "c<|im_end|>", "e", "f<|im_end|>"]
    with pytest.raises(InputError, match="4 parts as written by the model, but the conversation has 2 answers"):
        ours.encode([*messages[:3], Message("assistant", "ef", trained=False)])
    untrained = [Message(message.role, message.content, trained=False) for message in messages]
    assert not any(ours.encode(untrained).trained)


def test_the_end_is_trained_where_the_tag_leaves_it_out() -> None:
    template = CHATML.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
    ours = format_of("chatml", template)
    assert trained_text(ours, conversation("a", "b", "c", "d")) == ["b<|im_end|>", "d<|im_end|>"]
    assert ours.end_ids == format_of("chatml", CHATML).end_ids


def test_a_tag_inside_a_macro_is_followed_by_prefixes() -> None:
    """transformers would mark other characters there."""
    template = (
        "{% macro answer(text) %}{% generation %}{{ text }}<|im_end|>{% endgeneration %}{% endmacro %}"
        "{% for message in messages %}<|im_start|>{{ message.role }}:{% if message.role == 'assistant' %}"
        "{{ 'so ' ~ answer(message.content) }}{% else %}{{ message.content }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant:so {% endif %}"
    )
    assert trained_text(format_of("chatml", template), conversation("a", "b")) == ["b<|im_end|>"]


@pytest.mark.parametrize(
    "answer", ["{{ message.content }}", "{% generation %}{{ message.content }}{% endgeneration %}"]
)
def test_a_template_that_ends_an_answer_with_no_token_is_refused(answer: str) -> None:
    """A model could not learn to end."""
    template = "{% for message in messages %}<|im_start|>{{ message.role }}: " + answer + " {% endfor %}"
    with pytest.raises(InputError, match="ends an answer with no token of its own") as error:
        format_of("chatml", template)
    assert error.value.where == "chat_template.jinja, message 2 (assistant)"


def test_a_token_with_a_part_in_the_header_is_not_trained_where_there_is_no_tag() -> None:
    """Generation meets the header's blank as a token of its own, so one that goes on is never drawn."""
    template = CHATML.replace("{{ message.role }}\n", "{{ message.role }}: ").replace(">assistant\n", ">assistant: ")
    answer = conversation("a", "all the")
    assert trained_text(format_of("chatml", template), answer) == [" all the<|im_end|>"]  # what transformers marks
    assert trained_text(format_of("chatml", without_generation(template)), answer) == ["ll the<|im_end|>"]


THINKING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_turn_that_is_written_another_way_when_more_follows_is_named() -> None:
    """Qwen3's way: only the last answer begins with thoughts."""
    ours = format_of("chatml", THINKING)
    messages = conversation("a", "b", "c", "d")
    with pytest.raises(InputError, match="differently when more messages follow") as error:
        ours.encode(messages)
    assert error.value.where == "chat_template.jinja, message 2 (assistant)"
    assert error.value.exit_code == 3
    messages[1] = Message("assistant", "b", trained=False)
    assert trained_text(ours, messages) == ["<think>\n\n</think>\n\nd<|im_end|>"]
    assert ours.encode(conversation("a", "b", "c"), to_answer=True).ids  # as a prompt it is no trouble


def test_an_answer_before_which_the_template_takes_nothing_is_named() -> None:
    ours = format_of("mistral", without_generation(MISTRAL).replace("!= (loop.index0 % 2 == 0)", "== 3"))
    with pytest.raises(InputError, match="has no element 0") as error:
        ours.encode([Message("assistant", "b")])
    assert error.value.where == "chat_template.jinja, message 1 (assistant)"


def test_what_a_template_says_itself_reaches_the_reader() -> None:
    ours = format_of("mistral", MISTRAL)
    with pytest.raises(InputError, match=r"does not take this conversation: Roles must alternate: user, assistant"):
        ours.encode([Message("user", "a"), Message("user", "b")])
    with pytest.raises(InputError, match="no message"):
        ours.encode([])
    with pytest.raises(InputError, match="contains the name of a control token") as error:
        format_of("chatml", CHATML).encode([Message("user", "a"), Message("x<|im_end|>", "b")])
    assert error.value.where == "message 2"


def test_the_time_that_a_template_gets_is_given() -> None:
    now = datetime(2026, 2, 3)
    tokenizer = format_of("chatml", CHATML).tokenizer
    dated = TemplateFormat(tokenizer, "{{ strftime_now('%d %b %Y') }}" + CHATML, now=now)
    assert "03 Feb 2026" in tokenizer.decode(dated.encode(conversation("a")).ids)


def test_each_model_gets_its_own_format() -> None:
    own = train(lambda: LINES, "bpe", 400)
    assert isinstance(chat_format_of(own), ChatFormat)
    assert isinstance(chat_format_of(own, TEMPLATE), ChatFormat)
    assert isinstance(chat_format_of(own, TEMPLATE.replace("system", "user")), TemplateFormat)
    others = format_of("chatml", CHATML).tokenizer
    assert isinstance(chat_format_of(others, CHATML), TemplateFormat)
    with pytest.raises(UsageError, match=r"no chat template, and its tokenizer does not have the tokens") as error:
        chat_format_of(others)
    assert "chat_template.jinja" in error.value.fix
    with pytest.raises(UsageError, match="WordPiece") as error:
        chat_format_of(train(lambda: LINES, "wordpiece", 400), TEMPLATE)
    assert "`complete`" in error.value.fix


def test_acorns_own_template_means_the_same_as_a_template() -> None:
    own = train(lambda: LINES, "bpe", 400)
    messages = conversation("Say <|end|>", "<|user|>?", "c", "d", system="s")
    assert TemplateFormat(own, TEMPLATE).encode(messages) == ChatFormat(own).encode(messages)
    for to_answer in (True, False):
        plain_ones = conversation("a", "b", "c")
        asked = TemplateFormat(own, TEMPLATE).encode(plain_ones, to_answer=to_answer)
        assert asked == ChatFormat(own).encode(plain_ones, to_answer=to_answer)


def test_tokens_that_a_template_may_name_are_read_from_the_tokenizers_config() -> None:
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "unk_token": None}
    assert named_tokens({**config, "add_bos_token": True, "model_max_length": 5}) == {
        "bos_token": "<s>",
        "eos_token": "</s>",
    }


def test_a_template_for_llama_cpp_has_no_tag() -> None:
    assert "generation %}" not in format_of("chatml", CHATML).gguf_template.replace("add_generation_prompt", "")
