from __future__ import annotations

from functools import cache

import pytest
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from other_models import style
from small_models import LINES
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from acorn.errors import InputError
from acorn.tokenizer.completion_format import CompletionFormat
from acorn.tokenizer.continuation import encode_continuation
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

STYLES = ("gpt2", "llama-2", "llama-3", "qwen3")


@cache
def tokenizer_of(name: str) -> Tokenizer:
    if name in STYLES:
        return Tokenizer.from_json(style(name)[0], as_it_is=True)
    return train(lambda: LINES, name, 400)  # type: ignore[arg-type]


texts = st.text(max_size=20) | st.sampled_from(["", " ", " gulls", "gulls", "\nHe", "the keeper", "won it", "12"])


@pytest.mark.parametrize("name", ["bpe", *STYLES])
@given(prompt=texts, completion=texts)
@settings(max_examples=60)
def test_generation_meets_the_prompt_and_the_completion_decodes_to_itself(
    name: str, prompt: str, completion: str
) -> None:
    tokenizer = tokenizer_of(name)
    assume(not any(control in prompt + completion for control in tokenizer.control_tokens))
    complete = CompletionFormat(tokenizer)
    encoded = complete.encode(prompt, completion)
    first = encoded.trained.index(True)
    assert encoded.ids[:first] == complete.encode_prompt(prompt)
    # What `acorn generate` is prompted with; a prompt without a token begins a document there.
    assert encoded.ids[:first] == (tokenizer.encode_prompt(prompt) or [tokenizer.separator_id])
    assert encoded.ids[-1] == tokenizer.separator_id == complete.end_ids[0]
    assert all(encoded.trained[first:])
    assert not any(encoded.trained[:first])
    whole = tokenizer.decode(encoded.ids)
    if name == "qwen3":
        prompt, completion = tokenizer.normalize(prompt), tokenizer.normalize(completion)
    if name == "llama-2" and not prompt and completion.startswith(" "):
        return  # its decoder takes one space away from the beginning of a text
    assert whole.endswith(completion)
    assert whole in (prompt + completion, (prompt + completion).removeprefix(" "))


def test_the_layout_of_acorns_own() -> None:
    tokenizer = tokenizer_of("bpe")
    encoded = CompletionFormat(tokenizer).encode("a", "b")
    assert [tokenizer.piece(token_id) for token_id in encoded.ids] == ["<|endoftext|>", "a", "b", "<|endoftext|>"]
    assert encoded.trained == [False, False, True, True]
    words = CompletionFormat(tokenizer_of("wordpiece")).encode("the old", "oak")
    pieces = [tokenizer_of("wordpiece").piece(token_id) for token_id in words.ids]
    assert (pieces[0], pieces[-1]) == ("<|EOS|>", "<|EOS|>")
    assert words.ids == [*tokenizer_of("wordpiece").encode_prompt("the old oak"), words.ids[-1]]


@pytest.mark.parametrize("name", ["bpe", "wordpiece", *STYLES])
@given(prompt=st.text(max_size=4), completion=st.text(max_size=4), data=st.data())
@settings(max_examples=40)
def test_no_text_becomes_a_control_token(name: str, prompt: str, completion: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(name)
    controls = st.sampled_from(tokenizer.control_tokens)
    prompt, completion = prompt + data.draw(controls), data.draw(controls) + completion
    encoded = CompletionFormat(tokenizer).encode(prompt, completion)
    begin = encoded.ids[: len(tokenizer.prompt_start)]
    assert not tokenizer.control_ids.intersection(encoded.ids[len(begin) : -1])


def test_a_space_mark_is_not_put_between_prompt_and_completion() -> None:
    """Fault of encoding both apart: decoded, the word has a space in it that nobody wrote."""
    tokenizer = tokenizer_of("llama-2")
    assert tokenizer.marks_beginning
    apart = [*tokenizer.encode_documents("gul")[0], *tokenizer.encode_documents("ls")[0]]
    assert tokenizer.decode(apart) == "gul ls"
    assert tokenizer.decode(CompletionFormat(tokenizer).encode("gul", "ls").ids) == "gulls"
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=Backend.from_str(tokenizer.to_json()))
    encoded = CompletionFormat(tokenizer).encode("The keeper", " gulls")
    assert encoded.ids[:-1] == theirs("The keeper gulls")["input_ids"]


def test_where_prompt_and_completion_would_be_one_token_they_stay_apart() -> None:
    tokenizer = tokenizer_of("llama-2")
    border = [word[:at] for word in ("the", "gulls", "keeper", "Admiral") for at in range(1, len(word))]
    crossed = 0
    for prompt in border:
        (word,) = (word for word in ("the", "gulls", "keeper", "Admiral") if word.startswith(prompt))
        begun, whole = tokenizer.encode_documents([prompt, word])
        crossed += whole[: len(begun)] != begun
        encoded = CompletionFormat(tokenizer).encode(prompt, word.removeprefix(prompt))
        assert encoded.ids[: encoded.trained.index(True)] == tokenizer.encode_prompt(prompt)
        assert tokenizer.decode(encoded.ids) == word
    assert crossed


def fused(letters: str) -> Tokenizer:
    """What its vocabulary cannot spell becomes one unknown token, however long."""
    vocabulary = {name: number for number, name in enumerate(["<unk>", "</s>", "▁", *letters])}
    backend = Backend(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return Tokenizer(backend, as_it_is=True)


@pytest.mark.parametrize(("prompt", "expected"), [("b橡", [2, 3, 0]), ("b", [2, 3])])
def test_a_completion_is_not_swallowed_by_the_token_before_it(prompt: str, expected: list[int]) -> None:
    """Not by the prompt's last token, nor by one that is put before it to see what it is within a text."""
    letters = "b." if "橡" in prompt else "b"
    encoded = CompletionFormat(fused(letters)).encode(prompt, "树b")
    assert encoded.ids == [*expected, 0, 3, 1]
    assert encoded.trained == [False] * len(expected) + [True] * 3


def test_a_text_that_the_tokenizer_cannot_set_apart_is_refused() -> None:
    backend = Backend(models.WordLevel({"▁": 0, "<unk>": 1, "</s>": 2}, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    with pytest.raises(InputError, match="joins the beginning"):
        encode_continuation(Tokenizer(backend), "x")


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "marks"),
    [
        (None, pre_tokenizers.ByteLevel(add_prefix_space=False), False),
        (None, pre_tokenizers.ByteLevel(add_prefix_space=True), True),
        (None, pre_tokenizers.Metaspace(prepend_scheme="first"), True),
        (None, pre_tokenizers.Metaspace(prepend_scheme="never"), False),
        (None, pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always")]), True),
        (normalizers.Sequence([normalizers.NFC(), normalizers.Prepend("▁")]), None, True),
        (normalizers.NFC(), pre_tokenizers.Whitespace(), False),
    ],
)
def test_tokenizers_that_mark_the_beginning_of_a_text_are_known(
    normalizer: object, pre_tokenizer: object, marks: bool
) -> None:
    backend = Backend(models.WordLevel({"a": 0, "<unk>": 1, "</s>": 2}, unk_token="<unk>"))
    if normalizer:
        backend.normalizer = normalizer
    if pre_tokenizer:
        backend.pre_tokenizer = pre_tokenizer
    assert Tokenizer(backend).marks_beginning is marks
