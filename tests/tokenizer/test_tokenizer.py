from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from acorn import files
from acorn.errors import AcornError, InputError, ResourceError, UsageError
from acorn.tokenizer import bpe
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import Kind, train

KINDS: tuple[Kind, ...] = ("wordpiece", "bpe")
TEXTS = ["The tree that stood there was the <unk> tree of the [UNK] lord, 1,234 years old."] * 4
PROMPTS = [
    "",
    " ",
    "the tree",
    " the tree \n\n stood\tthere ",
    "the <unk> of [UNK]",
    "<|EOS|> the <|endoftext|><|user|>tree<|end|> there<|pad|>",
    "Việt हिन्दी 日本 🌳\u200d🌲 \u00e9 e\u0301 \x00",
    "don't do not , go . n't 's",
]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train(lambda: TEXTS, request.param, 320, entries=["<unk>"])


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return train(lambda: TEXTS, "bpe", 320, entries=["<unk>"])


@pytest.fixture(scope="module")
def word_piece() -> Tokenizer:
    return train(lambda: TEXTS, "wordpiece", 320)


@pytest.fixture(scope="module")
def transformers_own(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tokenizer that transformers builds from the two files of an exported model."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save(folder / "tokenizer.json")
    files.write_json(folder / "tokenizer_config.json", tokenizer.transformers_config(128))
    files.write_json(folder / "config.json", {"model_type": "gpt2"})
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_encoded_and_decoded_as_by_transformers(
    prompt: str, tokenizer: Tokenizer, transformers_own: Any
) -> None:
    ids = tokenizer.encode_prompt(prompt)
    assert ids == transformers_own(prompt)["input_ids"] == transformers_own.encode(prompt)
    assert ids[0] == tokenizer.separator_id
    for skip in (True, False):
        assert tokenizer.decode(ids, skip) == transformers_own.decode(ids, skip_special_tokens=skip)


def test_transformers_knows_the_special_tokens(tokenizer: Tokenizer, transformers_own: Any) -> None:
    assert transformers_own.bos_token_id == transformers_own.eos_token_id == tokenizer.separator_id
    assert transformers_own.pad_token_id == tokenizer.pad_id
    assert transformers_own.unk_token_id == tokenizer.unknown_id
    assert len(transformers_own) == tokenizer.vocab_size
    assert transformers_own.model_max_length == 128
    assert set(transformers_own("the tree")) == {"input_ids", "attention_mask"}


def test_empty_prompt_is_one_separator(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_prompt("") == [tokenizer.separator_id]


def test_the_saved_file_is_the_librarys_format(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    again = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert library.encode("the <unk> tree").ids == tokenizer.encode_prompt("the <unk> tree")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.to_json() == tokenizer.to_json() == (tmp_path / "tokenizer.json").read_text("utf-8")


@given(st.lists(st.text(), max_size=4))
def test_byte_level_decodes_every_text_exactly(byte_level: Tokenizer, texts: list[str]) -> None:
    for text, ids in zip(texts, byte_level.encode_documents(texts), strict=True):
        assert byte_level.decode(ids) == text


def test_entries_are_matched_in_documents_and_prompts(byte_level: Tokenizer) -> None:
    (ids,) = byte_level.encode_documents([" the <unk> of "])
    entry = json.loads(byte_level.to_json())["model"]["vocab"]["<unk>"]
    assert ids.count(entry) == 1
    assert byte_level.decode(ids) == " the <unk> of "
    assert byte_level.encode_prompt(" the <unk> of ")[1:] == ids
    assert entry not in byte_level.reserved_ids


def test_control_tokens_inside_documents_are_text(byte_level: Tokenizer) -> None:
    """Fault 13."""
    text = "a" + "".join(bpe.SPECIAL_TOKENS) + "b<unk>"
    (ids,) = byte_level.encode_documents([text])
    assert not set(ids) & {byte_level.separator_id, *byte_level.reserved_ids}
    assert byte_level.decode(ids) == text
    assert set(byte_level.encode_prompt(text)) >= {byte_level.separator_id, *byte_level.reserved_ids}


def test_separator_inside_wordpiece_documents_is_text_and_unknown_is_matched(word_piece: Tokenizer) -> None:
    """Fault 13."""
    (ids,) = word_piece.encode_documents(["the <|EOS|> tree [UNK]"])
    assert word_piece.separator_id not in ids
    assert ids[-1] == word_piece.unknown_id
    assert ids.count(word_piece.unknown_id or 0) == ids[:-1].count(word_piece.unknown_id or 0) + 1
    assert word_piece.encode_prompt("[UNK]<|EOS|>") == [1, 0, 1]


def test_reserved_ids(byte_level: Tokenizer, word_piece: Tokenizer) -> None:
    names = [byte_level.piece(token_id) for token_id in byte_level.reserved_ids]
    assert names == list(bpe.RESERVED_TOKENS)
    assert word_piece.reserved_ids == []
    assert byte_level.pad_id in byte_level.reserved_ids
    assert word_piece.pad_id == word_piece.separator_id


def test_ids_that_are_not_sampled_by_default(byte_level: Tokenizer, word_piece: Tokenizer) -> None:
    """They decode to no text. The unknown token is sampled if it also ends texts."""
    assert byte_level.unsampled_ids() == byte_level.reserved_ids
    assert word_piece.unsampled_ids() == [word_piece.unknown_id]
    assert all(word_piece.decode([token_id]) == "" for token_id in word_piece.unsampled_ids())
    assert word_piece.unsampled_ids(ends=[word_piece.unknown_id]) == []


def test_lossless_is_known_for_each_kind(byte_level: Tokenizer, word_piece: Tokenizer) -> None:
    assert (byte_level.kind, byte_level.lossless, byte_level.unknown_id) == ("bpe", True, None)
    assert (word_piece.kind, word_piece.lossless, word_piece.unknown_id) == ("wordpiece", False, 0)
    assert byte_level.normalize("Việt\t") == "Việt\t"
    assert word_piece.normalize("Việt\t") == "Viet "


def test_words_over_a_hundred_characters_are_unknown(word_piece: Tokenizer) -> None:
    """Fault 4."""
    assert word_piece.encode_documents(["t" * 101]) == [[word_piece.unknown_id]]
    assert word_piece.unknown_id not in word_piece.encode_documents(["t" * 100])[0]


def test_lone_surrogates_are_refused(tokenizer: Tokenizer) -> None:
    """Fault 11."""
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode_prompt("a\ud800")
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode_documents(["a\ud800"])


def test_a_failed_save_leaves_the_old_file(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 6."""
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    old = path.read_bytes()

    def no_rename(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "replace", no_rename)
    with pytest.raises(ResourceError):
        tokenizer.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1, 2]",
        b"not json",
        b"\xff\xfe\x00",
        pickle.dumps({"model": "BPE"}, protocol=0),
        pickle.dumps({"model": "BPE"}),
        b'{"version": "1.0", "model": {"type": "BPE"}}',
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}}',
        b'{"version": "1.0", "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", '
        b'"max_input_chars_per_word": 100, "vocab": {"</s>": 0}}}',
    ],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        Tokenizer.from_file(path)
    assert caught.value.where == str(path)
    assert caught.value.fix
    assert path.read_bytes() == content


def test_a_file_on_which_the_library_panics_is_refused(word_piece: Tokenizer) -> None:
    spec = json.loads(word_piece.to_json())
    spec["post_processor"]["special_tokens"] = {}
    with pytest.raises(InputError, match="cannot encode"):
        Tokenizer.from_json(json.dumps(spec))


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            Tokenizer.from_file(path)


def made_elsewhere(*specials: str, **settings: Any) -> str:
    """A byte-level tokenizer.json like those of other programs: no template, special tokens not in the model."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens([AddedToken(special) for special in specials])
    for name, value in settings.items():
        setattr(backend, name, value)
    return str(backend.to_str())


@pytest.mark.parametrize("separator", ["<|endoftext|>", "<|EOS|>", "</s>", "<|end_of_text|>"])
def test_a_tokenizer_of_another_program_is_adapted(separator: str) -> None:
    tokenizer = Tokenizer.from_json(made_elsewhere("<mask>", separator))
    assert tokenizer.separator == separator
    assert tokenizer.separator_id == tokenizer.vocab_size - 1
    assert tokenizer.reserved_ids == []  # <mask> may have been trained by the other program
    assert tokenizer.lossless
    (ids,) = tokenizer.encode_documents([f"the {separator} tree"])
    assert separator in tokenizer.decode(ids)
    assert tokenizer.separator_id not in ids
    assert tokenizer.encode_prompt("the tree") == [tokenizer.separator_id, *tokenizer.encode_documents(["the tree"])[0]]
    assert Tokenizer.from_json(tokenizer.to_json()).fingerprint == tokenizer.fingerprint


def test_truncation_and_padding_are_switched_off() -> None:
    backend = tokenizers.Tokenizer.from_str(made_elsewhere("</s>"))
    backend.enable_truncation(3)
    backend.enable_padding(length=10)
    tokenizer = Tokenizer.from_json(backend.to_str())
    assert tokenizer.decode(tokenizer.encode_documents(["the tree that stood there"])[0]) == "the tree that stood there"


def test_a_tokenizer_with_a_normalizer_is_not_lossless() -> None:
    assert not Tokenizer.from_json(made_elsewhere("</s>", normalizer=normalizers.NFC())).lossless


def test_without_a_separator_a_tokenizer_is_refused() -> None:
    with pytest.raises(InputError, match=r"<\|endoftext\|>, <\|EOS\|>"):
        Tokenizer.from_json(made_elsewhere("<mask>"))


@pytest.mark.parametrize("path", ["", "a\0", None, 5, "."])
def test_what_is_no_path_of_a_file_is_refused(path: Any, word_piece: Tokenizer) -> None:
    with pytest.raises(UsageError):
        word_piece.save(path)
    with pytest.raises(AcornError):
        Tokenizer.from_file(path)


@pytest.mark.parametrize("text", [None, 5, b"bytes", [None]])
def test_what_is_no_text_is_not_called_a_surrogate(text: Any, tokenizer: Tokenizer) -> None:
    for encode in (tokenizer.encode_documents, tokenizer.encode_prompt):
        with pytest.raises(UsageError, match="A text cannot be"):
            encode(text)
