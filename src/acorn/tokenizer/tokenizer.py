"""The tokenizer: encode, decode, save, and the facts about the vocabulary that the rest of the program needs.

It wraps the `tokenizers` library. Its saved form is that library's tokenizer.json, without additions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models, pre_tokenizers, processors

from acorn.errors import AcornError, InputError, UsageError, shown
from acorn.files import path_named, permission_denied, write_file
from acorn.pickles import refuse_pickle
from acorn.tokenizer import bpe, wordpiece
from acorn.tokenizer.target import check_target

MAX_UNUSED_IDS = 1 << 16
"""A file may have this many ids without a token, plus one per token. With more it is taken for damaged."""

LARGEST_ID = (1 << 32) - 1
"""The largest id that the library takes."""

# Document separators, of which the first in the vocabulary is used: acorn's own two, then those of other tokenizers.
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
"""How tokenizers made by SentencePiece write a byte of a character that is not in the vocabulary."""

_PROBE_TEXT = "a b"


class NoTokenizerError(InputError):
    """The file is not a tokenizer, as opposed to a tokenizer that acorn cannot use."""


class Tokenizer:
    """A vocabulary, and the rules that convert text to its ids and back.

    Args:
        backend: the library's tokenizer. It is modified: truncation and padding are switched off.
        as_it_is: keep what the backend adds before a prompt, for a model that was trained with it. Otherwise, if the
            backend adds nothing, it will add one document separator, because training documents begin with one.

    Attributes:
        prompt_start: ids that `encode_prompt` puts before a text.
        control_tokens: names of the tokens that no ordinary text becomes, such as the separator and chat markup.
        marks_beginning: a text that begins without a space gets the mark of one, as SentencePiece does it.
        document_start: ids before each document in training: the separator, then other ids that prompts begin with.

    Raises:
        InputError: the backend has no known document separator, or cannot encode.
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

        self.kind: str = spec["model"][
            "type"
        ].lower()  # wordpiece or bpe; other kinds only in files that acorn did not make
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
        # Only files that acorn did not make have ids without a token. Their control tokens may have been trained.
        holes = set(range(self.vocab_size)).difference(vocabulary.values())
        is_ours = set(bpe.RESERVED_TOKENS) <= set(specials)
        self.reserved_ids = sorted(holes | ({vocabulary[name] for name in bpe.RESERVED_TOKENS} if is_ours else set()))
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
            NoTokenizerError: it is not a tokenizer.json.
            InputError: acorn cannot use this tokenizer.
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
            NoTokenizerError: the file cannot be read, or is not a tokenizer.json.
            InputError: acorn cannot use this tokenizer.
        """
        path = path_named(path, "the tokenizer's path")
        refuse_pickle(Path(path), str(path), fix=_TOKENIZER_HINT)
        if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe could wait forever
            raise InputError(
                "The tokenizer cannot be read: this is not a regular file.", where=str(path), fix=_TOKENIZER_HINT
            )
        try:
            text = Path(path).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise NoTokenizerError(
                "This is not a tokenizer.json: it is not UTF-8 text.", where=str(path), fix=_TOKENIZER_HINT
            ) from None
        except PermissionError:
            raise permission_denied(Path(path)) from None
        except (OSError, ValueError) as error:  # ValueError: the path contains NUL
            raise NoTokenizerError(
                f"The tokenizer cannot be read: {getattr(error, 'strerror', error)}.",
                where=str(path),
                fix=_TOKENIZER_HINT,
            ) from None
        return cls.from_json(text, where=str(path), as_it_is=as_it_is)

    def to_json(self) -> str:
        """The content of tokenizer.json, which the `tokenizers` library can load without acorn."""
        return self._backend.to_str(pretty=True) + "\n"

    def save(self, path: str | Path) -> None:
        """Writes tokenizer.json. After a crash the file is the old one or the new one, and whole.

        Raises:
            UsageError: `path` is not a path, is a folder, or is a file that is not a tokenizer.
            ResourceError: the disk is full or cannot be written.
        """
        path = path_named(path, "the tokenizer's path")
        check_target(path, str(path.absolute()))
        write_file(path, self.to_json())

    def encode_documents(self, texts: str | Sequence[str]) -> list[list[int]]:
        """The ids of each text, without separators, encoded on all cores. A single string counts as a list of one.

        The name of a control token (separator, chat markup) in a text is ordinary text. The unknown token and the
        entries that the vocabulary was trained with, such as `<unk>`, are matched.

        Raises:
            InputError: a text is not valid Unicode, or the library cannot encode it.
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
        """The ids of a prompt: the ids that prompts begin with, then the text. Control tokens are matched.

        They are equal to those of transformers' AutoTokenizer, with its defaults, for the exported model.
        """
        with _library_errors("The tokenizer cannot encode the text"):
            try:
                return self._backend.encode(text).ids
            except TypeError:
                raise _not_unicode([text]) from None

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`. Incomplete UTF-8 characters become U+FFFD; ids without a token are ignored.

        Raises:
            UsageError: `ids` is not a list of ids.
        """
        try:
            numbers = [operator.index(token_id) for token_id in ids]
        except TypeError:
            numbers = None
        if numbers is None or not 0 <= min(numbers, default=0) <= max(numbers, default=0) <= LARGEST_ID:
            raise UsageError(
                f"The ids cannot be {shown(ids)}.", where="ids", fix="give a list of token ids, such as [5, 17]"
            )
        with _library_errors("The tokenizer cannot decode these ids"):
            return self._backend.decode(numbers, skip_special_tokens=skip_special_tokens)

    def normalize(self, text: str) -> str:
        """`text` after the normalizer, before it is split into tokens."""
        normalizer = self._backend.normalizer
        return normalizer.normalize_str(text) if normalizer else text

    def unsampled_ids(self, ends: Collection[int] = ()) -> list[int]:
        """Ids that are not sampled by default because they decode to no text: reserved ids and the unknown token.

        Args:
            ends: ids that end a text. In some vocabularies the unknown token is one of them; it is sampled then.
        """
        unknown = {self.unknown_id} if self.unknown_id is not None else set()
        return sorted({*self.reserved_ids, *unknown} - {self.separator_id, *ends})

    def is_byte(self, token_id: int) -> bool:
        """Whether the token is a single byte, whose character is known only together with its neighbors."""
        return token_id in self._bytes

    def reads_like(self, other: Tokenizer) -> bool:
        """Whether both give the same ids for every document. What prompts begin with may differ."""
        return self._reading == other._reading

    def id_of(self, piece: str) -> int | None:
        """The id of a vocabulary entry; None if there is none."""
        return self._backend.token_to_id(piece)

    def piece(self, token_id: int) -> str | None:
        """The vocabulary entry with this id; None if there is none."""
        return self._backend.id_to_token(token_id)

    def transformers_config(self, model_max_length: int) -> dict[str, Any]:
        """The content of tokenizer_config.json for a model with that context length.

        Without the class, AutoTokenizer would build a different tokenizer from the model type.
        """
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos,
            "eos_token": self.separator,
            "pad_token": self.pad,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model_max_length,
            "padding_side": "left",  # in a batch of prompts, generation continues at the end of each prompt
            # The default also contains token_type_ids, which GPT-2 would add to its embeddings.
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
    return [encoding.ids for encoding in _encodings(backend.encode_batch_fast, texts, add_special_tokens)]


def encode_with_offsets(
    backend: tokenizers.Tokenizer, texts: Sequence[str]
) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """The ids of each text, with what a text begins with, and for each id the part of the text that it stands for: its
    first character and the one after its last; an empty part for what was added.

    Raises:
        InputError: a text is not valid Unicode, or the library cannot encode it.
    """
    return [(encoding.ids, encoding.offsets) for encoding in _encodings(backend.encode_batch, texts, True)]


def _encodings(
    encode: Callable[..., list[tokenizers.Encoding]], texts: str | Sequence[str], add_special_tokens: bool
) -> list[tokenizers.Encoding]:
    texts = [texts] if isinstance(texts, str) else texts
    with _library_errors("The tokenizer cannot encode this text"):
        try:
            return encode(list(texts), add_special_tokens=add_special_tokens)
        except TypeError:
            raise _not_unicode(texts) from None


def gpt2_tokenizer(vocabulary: Path, merges: Path) -> Tokenizer:
    """GPT-2's tokenizer from the two files in which it was originally published.

    Raises:
        NoTokenizerError: they are not such files.
        InputError: acorn cannot use this tokenizer.
    """
    with _library_errors("This is not GPT-2's vocabulary", str(vocabulary.parent), NoTokenizerError):
        backend = bpe.reader(models.BPE.from_file(str(vocabulary), str(merges)))
    return Tokenizer(backend, as_it_is=True)


_TOKENIZER_HINT = "name a tokenizer.json of the Hugging Face tokenizers library, such as `acorn tokenizer train` writes"


@contextlib.contextmanager
def _library_errors(what: str, where: str = "", kind: type[InputError] = InputError) -> Iterator[None]:
    """Turns errors of the library into `kind`: it raises Exception for bad files, PanicException for its own faults."""
    try:
        yield
    except (AcornError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{what}: {error}", where=where, fix=_TOKENIZER_HINT) from None


def _digest(spec: dict[str, Any]) -> str:
    """SHA-256 of the content of a tokenizer.json, independent of its layout."""
    canonical = json.dumps(spec, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _not_unicode(texts: object) -> AcornError:
    """The error for a TypeError of the library: a text is not a string, or not valid Unicode."""
    for text in texts if isinstance(texts, Sequence) else [texts]:
        if not isinstance(text, str):
            return UsageError(f"A text cannot be {shown(text)}.", where="the text to encode", fix="give strings")
    return InputError(
        "The text contains a lone surrogate, which is not a character.",
        where="the text to encode",
        fix="use text that is valid Unicode",
    )


def _check_ids(backend: tokenizers.Tokenizer) -> None:
    """Refuses ids far above the number of entries: every id below them takes memory in the library and in a model."""
    vocabulary = backend.get_vocab()
    largest = max(vocabulary.values(), default=0)
    if largest >= 2 * len(vocabulary) + MAX_UNUSED_IDS:
        raise InputError(
            f"The tokenizer's largest id is {largest:,}, but it has only {len(vocabulary):,} entries.",
            fix=_TOKENIZER_HINT,
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
    """The ids that `backend` adds before a text; empty if it also adds ids after the text."""
    with _library_errors("The tokenizer cannot encode text"):
        text, prompt = backend.encode(_PROBE_TEXT, add_special_tokens=False).ids, backend.encode(_PROBE_TEXT).ids
    added = len(prompt) - len(text)
    return prompt[:added] if prompt[added:] == text else []


def _adapt(backend: tokenizers.Tokenizer, separator: str, as_it_is: bool) -> None:
    """Makes `backend` encode whole texts and begin prompts with a separator. acorn's own tokenizers already do."""
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
    """A second backend, for documents: it matches vocabulary entries, but not control tokens."""
    added = []
    for token in spec["added_tokens"]:
        is_control = token["content"] == separator or (token["special"] and token["content"] != unknown)
        added.append({**token, "special": is_control})
    backend = tokenizers.Tokenizer.from_str(json.dumps({**spec, "added_tokens": added}))
    backend.encode_special_tokens = True  # that means: as ordinary text
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
    """Whether decoding restores every text exactly: text is split into bytes, and all bytes are in the vocabulary."""
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
