"""One tokenizer value: encode, decode, save, and what the rest of the program needs to know about the vocabulary.

It wraps the `tokenizers` library, and its saved form is that library's tokenizer.json, nothing added.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models, pre_tokenizers, processors

from acorn.errors import AcornError, InputError, UsageError, shown
from acorn.files import path_named, write_file
from acorn.pickles import refuse_pickle
from acorn.tokenizer import bpe, wordpiece

# What may stand between documents, the first one found counts: our own two, then those of other people's files.
MOST_HOLES = 1 << 16
"""Ids without a token, beside as many as there are tokens, up to which a file is taken to mean what it says."""

SEPARATORS = (
    bpe.SEPARATOR,
    wordpiece.SEPARATOR,
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
)
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""A byte of a character that is not in the vocabulary, as tokenizers made by SentencePiece spell it."""

_PROBE = "a b"


class NoTokenizerError(InputError):
    """A file that cannot be read as a tokenizer at all, as opposed to one that cannot be used here."""


class Tokenizer:
    """A vocabulary and the rules that turn text into its ids and back.

    Args:
        backend: the library's tokenizer. It is taken over, without truncation and padding.
        as_it_is: a prompt begins as the backend has it, for a model that was trained so; else a backend that puts
            nothing before a prompt is made to put one document separator there, as training documents begin.

    Attributes:
        prompt_start: ids that `encode_prompt` puts before a text.
        control_tokens: names of the tokens that no ordinary text becomes, such as the separator and chat markup.
        marks_beginning: a text that begins without a space gets the mark of one, as SentencePiece does it.
        document_start: ids before each document in training: the separator, then what prompts begin with beside it.

    Raises:
        InputError: it has no document separator that is known here, or cannot encode.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, as_it_is: bool = False) -> None:
        _check_ids(backend)
        self.separator = _find_separator(backend)
        self._backend = backend
        _adapt(backend, self.separator, as_it_is)
        spec = json.loads(backend.to_str())
        vocabulary = backend.get_vocab()
        unknown: str | None = spec["model"].get("unk_token")
        if unknown not in vocabulary:
            unknown = None
        specials = [token["content"] for token in spec["added_tokens"] if token["special"]]

        self.kind: str = spec["model"]["type"].lower()  # wordpiece or bpe; others only when made elsewhere
        self.vocab_size = max(vocabulary.values()) + 1
        self.separator_id = vocabulary[self.separator]
        self.unknown = unknown
        self.unknown_id = None if unknown is None else vocabulary[unknown]
        self.pad = bpe.PAD if bpe.PAD in vocabulary else self.separator
        self.pad_id = vocabulary[self.pad]
        self.prompt_start = _prompt_start(backend)
        start = [token_id for token_id in self.prompt_start if token_id != self.separator_id]
        self.document_start = [self.separator_id, *start]
        self.bos = self.piece(start[0]) if start else self.separator
        # Ids without a token can only come from a file made elsewhere, whose own control tokens may be trained.
        holes = set(range(self.vocab_size)).difference(vocabulary.values())
        is_ours = set(bpe.RESERVED) <= set(specials)
        self.reserved_ids = sorted(holes | ({vocabulary[name] for name in bpe.RESERVED} if is_ours else set()))
        self._bytes = {vocabulary[piece] for piece in vocabulary if _BYTE.fullmatch(piece)}
        self.lossless = _is_lossless(spec, vocabulary)
        self.fingerprint = _digest(spec)
        self._reading = _digest({**spec, "post_processor": None})
        self.control_tokens = tuple(name for name in specials if name != unknown or name == self.separator)
        self.control_ids = frozenset(vocabulary[name] for name in self.control_tokens)
        self.marks_beginning = _marks_beginning(spec)
        self._documents = _without_controls(spec, self.separator, unknown)

    def __repr__(self) -> str:
        what = "lossless" if self.lossless else "not lossless"
        return f"<{type(self).__name__}: {self.kind} of {self.vocab_size:,} entries, {what}>"

    @classmethod
    def from_json(cls, text: str, *, where: str = "", as_it_is: bool = False) -> Tokenizer:
        """The tokenizer in the text of a tokenizer.json.

        Raises:
            NoTokenizerError: it is not one.
            InputError: it is not one that can be used here.
        """
        with _library_errors("This is not a tokenizer.json", where, NoTokenizerError):
            backend = tokenizers.Tokenizer.from_str(text)
        try:
            with _library_errors("The tokenizer cannot be used"):
                return cls(backend, as_it_is=as_it_is)
        except InputError as error:
            raise InputError(error.what, where=where, fix=error.fix) from None

    @classmethod
    def from_file(cls, path: str | Path, *, as_it_is: bool = False) -> Tokenizer:
        """The tokenizer in the file `path`.

        Raises:
            UsageError: `path` is not a path.
            NoTokenizerError: it cannot be read, or is not a tokenizer.json.
            InputError: it is not one that can be used here.
        """
        path = path_named(path, "the tokenizer's path")
        refuse_pickle(Path(path), str(path), fix=_OTHER_TOKENIZER)
        if os.path.exists(path) and not os.path.isfile(path):  # who opens a pipe waits for what may never come
            raise InputError(
                "The tokenizer cannot be read: this is no regular file.", where=str(path), fix=_OTHER_TOKENIZER
            )
        try:
            text = Path(path).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise NoTokenizerError(
                "This is not a tokenizer.json: it is not UTF-8 text.", where=str(path), fix=_OTHER_TOKENIZER
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise NoTokenizerError(
                f"The tokenizer cannot be read: {getattr(error, 'strerror', error)}.",
                where=str(path),
                fix=_OTHER_TOKENIZER,
            ) from None
        return cls.from_json(text, where=str(path), as_it_is=as_it_is)

    def to_json(self) -> str:
        """The content of tokenizer.json, which the `tokenizers` library loads by itself."""
        return self._backend.to_str(pretty=True) + "\n"

    def save(self, path: str | Path) -> None:
        """Writes tokenizer.json; a crash leaves the old file or the new one.

        Raises:
            UsageError: `path` is not a path, or is a folder.
            ResourceError: the disk is full or cannot be written.
        """
        path = path_named(path, "the tokenizer's path")
        if path.is_dir():
            raise UsageError(
                f"{path} is a folder.", where=str(path.absolute()), fix="name a file in it, such as tokenizer.json"
            )
        write_file(path, self.to_json())

    def encode_documents(self, texts: str | Sequence[str]) -> list[list[int]]:
        """The ids of each text, on all cores, without separators. A lone text stands for a list of one.

        The text of a control token (separator, chat markup) is ordinary text here; the unknown token and the entries
        the vocabulary was trained with, such as `<unk>`, are matched.

        Raises:
            InputError: a text is no Unicode, or the library fails at it.
        """
        return encode_all(self._documents, texts, add_special_tokens=False)

    def encode_part(self, text: str, *, controls: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of `text` with nothing before or after it, and for each the characters [begin, end) it stands for.

        Args:
            controls: match control tokens, as in a prompt; else their names are ordinary text, as in a document.

        Raises:
            InputError: the text is not valid Unicode, or the library cannot encode it.
        """
        backend = self._backend if controls else self._documents
        with _library_errors("The tokenizer cannot encode the text"):
            try:
                encoding = backend.encode(text, add_special_tokens=False)
            except TypeError:
                raise _not_unicode([text]) from None
        return encoding.ids, encoding.offsets

    def encode_prompt(self, text: str) -> list[int]:
        """The ids a model is prompted with: what its prompts begin with, then the text, control tokens matched.

        Exactly what transformers' AutoTokenizer gives, by default, for the exported model.
        """
        with _library_errors("The tokenizer cannot encode the text"):
            try:
                return self._backend.encode(text).ids
            except TypeError:
                raise _not_unicode([text]) from None

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`. Bytes that are not whole UTF-8 characters become U+FFFD; ids without a token nothing."""
        with _library_errors("The tokenizer cannot decode these ids"):
            return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def normalize(self, text: str) -> str:
        """What the normaliser leaves of `text`, before it is cut into tokens."""
        normalizer = self._backend.normalizer
        return normalizer.normalize_str(text) if normalizer else text

    def unsampled_ids(self, ends: Collection[int] = ()) -> list[int]:
        """Ids that are not to be drawn unless asked for, since no text is decoded from them: reserved ones, and the
        unknown token.

        Args:
            ends: ids that end a text; in some vocabularies the unknown token is one of them, and may be drawn.
        """
        unknown = {self.unknown_id} if self.unknown_id is not None else set()
        return sorted({*self.reserved_ids, *unknown} - {self.separator_id, *ends})

    def is_byte(self, token_id: int) -> bool:
        """Whether the token is one byte whose character is only known with its neighbours."""
        return token_id in self._bytes

    def reads_like(self, other: Tokenizer) -> bool:
        """Whether every document has the same ids in both; a prompt may begin otherwise."""
        return self._reading == other._reading

    def id_of(self, piece: str) -> int | None:
        """The id of a vocabulary entry; None if there is none."""
        return self._backend.token_to_id(piece)

    def piece(self, token_id: int) -> str | None:
        """The vocabulary's spelling of an id; None where there is no token."""
        return self._backend.id_to_token(token_id)

    def transformers_config(self, model_max_length: int) -> dict[str, Any]:
        """The content of tokenizer_config.json beside a model of that context length.

        The class is stated because AutoTokenizer would otherwise build another tokenizer from the model type.
        """
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos,
            "eos_token": self.separator,
            "pad_token": self.pad,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model_max_length,
            "padding_side": "left",  # of a batch of prompts, so that text goes on from each prompt's end
            # By default also token_type_ids, which GPT-2 would add to its embeddings.
            "model_input_names": ["input_ids", "attention_mask"],
        }
        return {**config, "unk_token": self.unknown} if self.unknown else config


def encode_all(
    backend: tokenizers.Tokenizer, texts: str | Sequence[str], *, add_special_tokens: bool
) -> list[list[int]]:
    """The ids of each text, encoded on all cores. A single string counts as a list of one.

    Raises:
        InputError: a text is not valid Unicode, or the library cannot encode it.
    """
    texts = [texts] if isinstance(texts, str) else texts
    with _library_errors("The tokenizer cannot encode this text"):
        try:
            encodings = backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        except TypeError:
            raise _not_unicode(texts) from None
    return [encoding.ids for encoding in encodings]


def gpt2_tokenizer(vocabulary: Path, merges: Path) -> Tokenizer:
    """GPT-2's tokenizer out of the two files in which it was first published.

    Raises:
        NoTokenizerError: they are not such files.
        InputError: it cannot be used here.
    """
    with _library_errors("This is not GPT-2's vocabulary", str(vocabulary.parent), NoTokenizerError):
        backend = bpe.reader(models.BPE.from_file(str(vocabulary), str(merges)))
    return Tokenizer(backend, as_it_is=True)


_OTHER_TOKENIZER = "name a tokenizer.json of the Hugging Face tokenizers library; `acorn tokenizer train` makes one"


@contextlib.contextmanager
def _library_errors(what: str, where: str = "", kind: type[InputError] = InputError) -> Iterator[None]:
    """The library raises plain Exception for bad files, and PanicException, which is none, for what it overlooked."""
    try:
        yield
    except (AcornError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{what}: {error}", where=where, fix=_OTHER_TOKENIZER) from None


def _digest(spec: dict[str, Any]) -> str:
    """SHA-256 of a tokenizer.json, however it is laid out."""
    canonical = json.dumps(spec, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _not_unicode(texts: object) -> AcornError:
    """What the library's TypeError means: something is no string, or a string that is no Unicode."""
    for text in texts if isinstance(texts, Sequence) else [texts]:
        if not isinstance(text, str):
            return UsageError(f"A text cannot be {shown(text)}.", where="the text to encode", fix="give strings")
    return InputError(
        "The text holds a lone surrogate, which is no character.",
        where="the text to encode",
        fix="give text that is valid Unicode",
    )


def _check_ids(backend: tokenizers.Tokenizer) -> None:
    """Refuses ids far beyond the number of entries: the library lists each in between, a model has a row for it."""
    vocabulary = backend.get_vocab()
    largest = max(vocabulary.values(), default=0)
    if largest >= 2 * len(vocabulary) + MOST_HOLES:
        raise InputError(
            f"The tokenizer's largest id is {largest:,}, but it has {len(vocabulary):,} entries only.",
            fix=_OTHER_TOKENIZER,
        )


def _find_separator(backend: tokenizers.Tokenizer) -> str:
    for name in SEPARATORS:
        if backend.token_to_id(name) is not None:
            return name
    raise InputError(
        "The tokenizer has no document separator: none of " + ", ".join(SEPARATORS) + " is in its vocabulary.",
        fix="add one of them to the tokenizer as a special token, or train one with `acorn tokenizer train`",
    )


def _prompt_start(backend: tokenizers.Tokenizer) -> list[int]:
    """The ids that `backend` puts before a text; empty also where it adds any after it."""
    with _library_errors("The tokenizer cannot encode text"):
        text, prompt = backend.encode(_PROBE, add_special_tokens=False).ids, backend.encode(_PROBE).ids
    added = len(prompt) - len(text)
    return prompt[:added] if prompt[added:] == text else []


def _adapt(backend: tokenizers.Tokenizer, separator: str, as_it_is: bool) -> None:
    """Makes `backend` treat whole texts, and begin each with something. Ours are that way already."""
    backend.no_truncation()
    backend.no_padding()
    separator_id = backend.token_to_id(separator)
    if not any(token.special for id_, token in backend.get_added_tokens_decoder().items() if id_ == separator_id):
        backend.add_special_tokens([AddedToken(separator, normalized=False)])
    if not _prompt_start(backend) and not as_it_is:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{separator} $A", special_tokens=[(separator, separator_id)]
        )


def _without_controls(spec: dict[str, Any], separator: str, unknown: str | None) -> tokenizers.Tokenizer:
    """A second backend for documents, in which only vocabulary entries, not control tokens, are matched."""
    added = []
    for token in spec["added_tokens"]:
        is_control = token["content"] == separator or (token["special"] and token["content"] != unknown)
        added.append({**token, "special": is_control})
    backend = tokenizers.Tokenizer.from_str(json.dumps({**spec, "added_tokens": added}))
    backend.encode_special_tokens = True  # as ordinary text, that is
    return backend


def _marks_beginning(spec: dict[str, Any]) -> bool:
    """Whether a text that begins without a space is encoded as if it began with one."""
    steps = [spec["normalizer"] or {}, spec["pre_tokenizer"] or {}]
    steps += [inner for step in steps for key in ("normalizers", "pretokenizers") for inner in step.get(key, [])]
    return any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        or step.get("add_prefix_space", False)
        for step in steps
    )


def _is_lossless(spec: dict[str, Any], vocabulary: dict[str, int]) -> bool:
    """Whether every text comes back as it went in: bytes on the way in and out, each one in the vocabulary."""
    pre_tokenizer, decoder = spec["pre_tokenizer"] or {}, spec["decoder"] or {}
    steps = [pre_tokenizer, *pre_tokenizer.get("pretokenizers", [])]
    return (
        spec["model"]["type"] == "BPE"
        and spec["normalizer"] is None
        and decoder.get("type") == "ByteLevel"
        and any(step.get("type") == "ByteLevel" for step in steps)
        and not any(step.get("add_prefix_space") or step.get("behavior") == "Removed" for step in steps)
        and not any(token["lstrip"] or token["rstrip"] for token in spec["added_tokens"])
        and all(letter in vocabulary for letter in pre_tokenizers.ByteLevel.alphabet())
    )
