"""The official openai client against the server with its engine."""

from __future__ import annotations

from typing import Any

import openai
import pytest
import torch
from openai import OpenAI

from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings

PROMPT = "The old oak"


def settings_of(**more: Any) -> SamplingSettings:
    """OpenAI's defaults."""
    return SamplingSettings(**{"temperature": 1.0, "top_k": 0, "max_new_tokens": 16, **more})


def test_a_completion_is_what_generate_gives(real, client: OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, seed=5, max_tokens=12)
    (expected,) = generate(real.loaded.model, real.loaded.tokenizer, [PROMPT], settings_of(seed=5, max_new_tokens=12))
    assert answer.choices[0].text == expected.completion
    assert answer.object == "text_completion"
    assert answer.usage.prompt_tokens == len(expected.prompt_ids)
    assert answer.usage.completion_tokens == len(expected.new_ids)
    assert answer.usage.total_tokens == len(expected.prompt_ids) + len(expected.new_ids)


def test_absent_max_tokens_are_16_and_ids_are_a_prompt(real, client: OpenAI) -> None:
    ids = real.loaded.tokenizer.encode_prompt(PROMPT)
    answer = client.completions.create(model="tiny", prompt=ids, seed=5, extra_body={"ignore_eos": True})
    again = client.completions.create(model="tiny", prompt=PROMPT, seed=5, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].text == again.choices[0].text


@pytest.mark.parametrize("more", [{}, {"stop": ["e", " o"]}, {"logprobs": 2, "echo": True}, {"echo": True}])
def test_a_stream_gives_the_same_as_a_whole_answer(client: OpenAI, more: dict[str, Any]) -> None:
    wanted = {"model": "tiny", "prompt": [PROMPT, "Walking"], "n": 2, "seed": 3, "max_tokens": 20, **more}
    whole = client.completions.create(**wanted)
    texts, reasons, tokens = [""] * 4, [[] for _ in range(4)], [[] for _ in range(4)]
    *chunks, last = client.completions.create(**wanted, stream=True, stream_options={"include_usage": True})
    for chunk in chunks:
        assert chunk.usage is None
        (choice,) = chunk.choices
        texts[choice.index] += choice.text
        reasons[choice.index] += [choice.finish_reason] * (choice.finish_reason is not None)
        tokens[choice.index] += choice.logprobs.text_offset if choice.logprobs else []
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [[choice.finish_reason] for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    if "logprobs" in more:
        assert tokens == [choice.logprobs.text_offset for choice in whole.choices]


def test_a_stop_string_ends_the_text_before_it(client: OpenAI) -> None:
    plain = client.completions.create(model="tiny", prompt=PROMPT, seed=8, max_tokens=30)
    text = plain.choices[0].text
    stop = text[len(text) // 2 :][:2]
    for streamed in (False, True):
        answer = client.completions.create(
            model="tiny", prompt=PROMPT, seed=8, max_tokens=30, stop=stop, logprobs=0, stream=streamed
        )
        parts = [chunk.choices[0] for chunk in answer] if streamed else [answer.choices[0]]
        assert "".join(part.text for part in parts) == text[: text.index(stop)]
        assert parts[-1].finish_reason == "stop"
        offsets = [offset for part in parts for offset in part.logprobs.text_offset]
        assert all(offset < len(PROMPT) + text.index(stop) for offset in offsets)


def test_echo_scores_the_prompt_as_the_model_does(real, client: OpenAI) -> None:
    ids = real.loaded.tokenizer.encode_prompt(PROMPT)
    answer = client.completions.create(model="tiny", prompt=PROMPT, echo=True, max_tokens=0, logprobs=3)
    found = answer.choices[0].logprobs
    with torch.no_grad():
        logits = real.loaded.model.eval()(torch.tensor([ids]))
        logits = logits[0] if isinstance(logits, tuple) else logits
    expected = torch.log_softmax(logits[0, :-1].float(), -1)
    assert answer.choices[0].text == PROMPT
    assert answer.usage.completion_tokens == 0
    assert found.token_logprobs[0] is None
    assert found.top_logprobs[0] is None
    wanted = [expected[place, token].item() for place, token in enumerate(ids[1:])]
    assert found.token_logprobs[1:] == pytest.approx(wanted, abs=1e-3)
    for place, top in enumerate(found.top_logprobs[1:]):
        assert max(top.values()) == pytest.approx(expected[place].max().item(), abs=1e-3)
    assert "".join(found.tokens[1:]) == PROMPT
    assert found.text_offset == [0, *(len("".join(found.tokens[1:n])) for n in range(1, len(ids)))]


def test_a_prompt_of_the_whole_context_with_one_new_token_is_taken(real, client: OpenAI) -> None:
    ids = [100] * real.loaded.config.block_size
    answer = client.completions.create(model="tiny", prompt=ids, max_tokens=1, echo=True, logprobs=1)
    assert len(answer.choices[0].logprobs.tokens) == len(ids) + answer.usage.completion_tokens
    with pytest.raises(openai.BadRequestError, match=r"65 tokens, more than .* 64") as refused:
        client.completions.create(model="tiny", prompt=[*ids, 100], max_tokens=1)
    assert refused.value.param == "prompt"
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny", prompt=ids, max_tokens=2)
    assert refused.value.param == "max_tokens"
    assert refused.value.code == "context_length_exceeded"


def test_a_chat_is_what_the_template_asks_for(real, client: OpenAI) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    answer = client.chat.completions.create(model="tiny", messages=messages, seed=4, max_completion_tokens=10)
    from acorn.checkpoint.model_chat import chat_format
    from acorn.text.examples import Message

    format = chat_format(real.loaded)
    ids = format.encode([Message("system", "Be kind.", False), Message("user", "Hi", False)], to_answer=True).ids
    (expected,) = generate(
        real.loaded.model,
        real.loaded.tokenizer,
        [ids],
        settings_of(seed=4, max_new_tokens=10),
        end_ids=format.end_ids,
    )
    assert answer.choices[0].message.content == expected.completion
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.prompt_tokens == len(ids)


def test_a_chat_stream_gives_the_same_as_a_whole_answer(client: OpenAI) -> None:
    wanted: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi"}],
        "n": 2,
        "seed": 6,
        "logprobs": True,
        "top_logprobs": 2,
        "max_tokens": 20,
    }
    whole = client.chat.completions.create(**wanted)
    texts, scores = ["", ""], [[], []]
    for chunk in client.chat.completions.create(**wanted, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content
        scores[choice.index] += choice.logprobs.content
    assert texts == [choice.message.content for choice in whole.choices]
    assert scores == [choice.logprobs.content for choice in whole.choices]
    for choice in whole.choices:
        joined = b"".join(bytes(token.bytes) for token in choice.logprobs.content)
        assert joined.decode("utf-8", errors="replace") == choice.message.content
        assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)


def test_logit_bias_and_greedy(client: OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt=PROMPT, temperature=0, max_tokens=3, logit_bias={"100": 100}, logprobs=0
    )
    assert len(set(answer.choices[0].logprobs.tokens)) == 1


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"max_tokens": True}, "max_tokens"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 10**6}, "n"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": "x" * 257}, "stop"),
        ({"logit_bias": {"100000": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 1000}}, "logit_bias"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt": [10**6]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"extra_body": {"top_k": -1}}, "top_k"),
        ({"extra_body": {"min_p": 1}}, "min_p"),
        ({"extra_body": {"tools": [{"type": "function"}]}}, "tools"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_wrong_values_are_named(client: OpenAI, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "tiny", "prompt": PROMPT, **wrong})
    assert refused.value.param == param
    assert param in refused.value.message


def test_other_models_and_fields(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="gpt-4", prompt=PROMPT)
    assert refused.value.code == "model_not_found"
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").context_length == 64
    answer = client.completions.with_raw_response.create(
        model="tiny", prompt=PROMPT, user="me", extra_body={"new\nfield": 1, "top_p": None}, max_tokens=1
    )
    assert answer.headers["x-acorn-ignored"] == "new?field, user"
