"""Trains a tokenizer. Equal text gives an equal tokenizer, whatever the number of threads."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from tokenizers import AddedToken

from acorn.counting import counted
from acorn.errors import InputError, UsageError
from acorn.progress import QUIET, Progress
from acorn.tokenizer import bpe, wordpiece
from acorn.tokenizer.sized_text import SizedText, text_and_bytes
from acorn.tokenizer.tokenizer import Tokenizer

Kind = Literal["wordpiece", "bpe"]
Texts = Callable[[], Iterable[str | SizedText]]

_LEARNING_TASK = "learning the vocabulary"
MAX_RUN_CHARACTERS = 1024  # longest run of only blank, or only non-blank, characters that the trainers get in one piece
TEXT_CACHE_BYTES = 1 << 27  # memory for text that needs two passes; a larger text is read twice
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{MAX_RUN_CHARACTERS + 1},}}|(?<!\s)\s{{{MAX_RUN_CHARACTERS + 1},}}")
_STRIDE = MAX_RUN_CHARACTERS // 2
_STRIDE_WITHOUT_CHANGE = re.compile(rf"\S{{{_STRIDE}}}|\s{{{_STRIDE}}}")


def train(
    texts: Texts, kind: Kind, vocab_size: int, *, entries: str | Sequence[str] = (), progress: Progress = QUIET
) -> Tokenizer:
    """Trains a tokenizer.

    Args:
        texts: returns all training documents each time it is called. WordPiece needs two passes; the second one reads
            up to TEXT_CACHE_BYTES of text from memory.
        kind: `bpe` or `wordpiece`.
        vocab_size: number of entries, special tokens included. A small text may give fewer; a note says so.
        entries: strings such as `<unk>` that become one vocabulary entry each and are matched everywhere. A single
            string counts as a list of one.
        progress: is told when reading ends and learning starts, and gets notes. `texts` reports the reading itself.

    Raises:
        UsageError: the vocabulary is too small, or an entry collides with another.
        InputError: there is no text to learn from.
    """
    if kind not in ("wordpiece", "bpe"):
        raise UsageError(f"There is no tokenizer kind {kind!r}.", where="tokenizer.kind", fix="use bpe or wordpiece")
    entries = (entries,) if isinstance(entries, str) else entries
    specials = wordpiece.SPECIAL_TOKENS if kind == "wordpiece" else bpe.SPECIAL_TOKENS
    _check_entries(entries, specials)
    matched = [*entries, wordpiece.UNKNOWN] if kind == "wordpiece" else entries
    text = _TrainingText(texts, matched)

    named = len(specials) + len(entries)
    if kind == "wordpiece":
        kept: list[str] = []
        letters = wordpiece.alphabet(_cache_texts(text.read(), kept))
        text.check_not_empty()
        forms = f"each of the text's {counted(len(letters), 'character')}, at the beginning of a word and within it,"
        _check_vocab_size(vocab_size, named + 2 * len(letters), forms)
        again = _consume(kept) if kept else text.read()
        backend = wordpiece.learn(_announce_learning(again, progress), letters, vocab_size, entries)
    else:
        _check_vocab_size(vocab_size, named + 256, "the 256 bytes")
        backend = bpe.learn(_announce_learning(text.read(), progress), vocab_size, entries)
        text.check_not_empty()
    progress.at(_LEARNING_TASK, backend.get_vocab_size(), backend.get_vocab_size(), "entries")
    progress.end(_LEARNING_TASK)

    backend.add_special_tokens([AddedToken(special, normalized=False) for special in specials])
    backend.add_tokens([AddedToken(entry, normalized=False) for entry in entries])
    tokenizer = Tokenizer(backend)
    if tokenizer.vocab_size < vocab_size:
        progress.note(
            f"The text is too small for {vocab_size:,} vocabulary entries: it gave {tokenizer.vocab_size:,} "
            f"from {counted(text.documents, 'document')} of {text.n_bytes:,} bytes."
        )
    return tokenizer


class _TrainingText:
    """Prepares the training documents for the trainers, and counts them."""

    def __init__(self, texts: Texts, matched: Sequence[str]) -> None:
        self.texts = texts
        self.matched = re.compile("|".join(map(re.escape, matched))) if matched else None
        self.documents = self.n_bytes = 0
        self.has_letters = False

    def read(self) -> Iterator[str]:
        """Yields pieces of the documents: cut at the entries, which are matched and not learned, and in long words."""
        self.documents = self.n_bytes = 0
        for item in self.texts():
            text, n_bytes = text_and_bytes(item)
            self.documents += 1
            self.n_bytes += n_bytes
            for part in self.matched.split(text) if self.matched else (text,):
                self.has_letters = self.has_letters or not (part.isspace() or not part)
                yield from _cut(part)

    def check_not_empty(self) -> None:
        if not self.has_letters:
            found = f"{counted(self.documents, 'document')}, {counted(self.n_bytes, 'byte')}"
            raise InputError(
                f"There is no text to train a tokenizer on: {found}, no letters.",
                where="data.source",
                fix="check that the source names the right files, and that data.clean does not remove their text",
            )


def _cache_texts(texts: Iterator[str], kept: list[str]) -> Iterator[str]:
    """Yields the texts and adds them to `kept`, which is cleared if they take more than TEXT_CACHE_BYTES."""
    free = TEXT_CACHE_BYTES
    for text in texts:
        free -= sys.getsizeof(text)
        if free >= 0:
            kept.append(text)
        else:
            kept.clear()
        yield text


def _consume(kept: list[str]) -> Iterator[str]:
    """Yields the texts in order and frees each one: learning needs the memory."""
    kept.reverse()
    while kept:
        yield kept.pop()


def _announce_learning(texts: Iterator[str], progress: Progress) -> Iterator[str]:
    """Yields the texts, then reports that learning starts, which can take minutes."""
    yield from texts
    progress.at(_LEARNING_TASK, 0, 0, "entries")


def _cut(text: str) -> Iterator[str]:
    """Cuts runs longer than MAX_RUN_CHARACTERS: the trainers' time grows with the square of a word's length."""
    # A longer run covers everything between two multiples of the stride, so testing at these multiples is enough.
    if not any(_STRIDE_WITHOUT_CHANGE.match(text, at) for at in range(0, len(text) - _STRIDE, _STRIDE)):
        yield text
        return
    start = 0
    for run in _LONG_RUN.finditer(text):
        for end in range(run.start() + MAX_RUN_CHARACTERS, run.end(), MAX_RUN_CHARACTERS):
            yield text[start:end]
            start = end
    yield text[start:]


def _check_vocab_size(vocab_size: int, least: int, what: str) -> None:
    if vocab_size < least:
        raise UsageError(
            f"A vocabulary of {vocab_size:,} entries is too small: the special tokens and {what} need {least:,}.",
            where="tokenizer.vocab_size",
            fix=f"set tokenizer.vocab_size to {least:,} or more (only the entries above that are learned)",
        )


def _check_entries(entries: Sequence[str], specials: Sequence[str]) -> None:
    """Raises UsageError with all faults unless no learned piece can be equal to an entry."""
    faults = [f"{name!r} is given {n} times" for name, n in Counter(entries).items() if n > 1]
    faults += [f"{name!r} is a special token already" for name in entries if name in specials]
    for name in dict.fromkeys(entries):
        # Byte-level decoding would read non-ASCII letters as bytes; `##` marks a learned piece.
        if not (name.isascii() and name.isprintable()) or not name or " " in name or name.startswith("##"):
            faults.append(f"{name!r} does not consist of printable ASCII characters without spaces, or begins with ##")
        elif re.fullmatch(r"'?\w+|[^\w\s]+", name):
            faults.append(f"{name!r} would collide with an ordinary word or punctuation mark of the same spelling")
    if faults:
        raise UsageError(
            "These vocabulary entries cannot be added: " + "; ".join(faults) + ".",
            where="entries",
            fix="name each entry once, in brackets such as <name>",
        )
