"""Learns a vocabulary from text. Equal text gives an equal tokenizer, whatever the number of threads."""

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

_LEARNING = "learning the vocabulary"
LONGEST_RUN = 1024  # characters without a change between blank and not blank that the trainers see in one piece
KEPT_BYTES = 1 << 27  # of memory for text that is not read a second time where two passes are needed
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{LONGEST_RUN + 1},}}|(?<!\s)\s{{{LONGEST_RUN + 1},}}")
_STRIDE = LONGEST_RUN // 2
_UNCHANGED = re.compile(rf"\S{{{_STRIDE}}}|\s{{{_STRIDE}}}")


def train(
    texts: Texts, kind: Kind, vocab_size: int, *, entries: str | Sequence[str] = (), progress: Progress = QUIET
) -> Tokenizer:
    """Learns a tokenizer.

    Args:
        texts: gives the training documents, from the first on, each time it is called. WordPiece needs two passes, the
            second one over texts of up to KEPT_BYTES from memory.
        kind: `bpe` or `wordpiece`.
        vocab_size: entries wanted, special tokens included. A small text may reach fewer; progress is told.
        entries: strings such as `<unk>` that become one vocabulary entry each, matched wherever they stand; a lone
            string stands for a list of one.
        progress: hears that the reading is done and the learning goes on, and notes. `texts` tells of the reading.

    Raises:
        UsageError: the vocabulary is too small, or an entry collides with another.
        InputError: there is no text to learn from.
    """
    if kind not in ("wordpiece", "bpe"):
        raise UsageError(f"There is no tokenizer kind {kind!r}.", where="tokenizer.kind", fix="use bpe or wordpiece")
    entries = (entries,) if isinstance(entries, str) else entries
    specials = wordpiece.SPECIALS if kind == "wordpiece" else bpe.SPECIALS
    _check_entries(entries, specials)
    matched = [*entries, wordpiece.UNKNOWN] if kind == "wordpiece" else entries
    text = _TrainingText(texts, matched)

    named = len(specials) + len(entries)
    if kind == "wordpiece":
        kept: list[str] = []
        letters = wordpiece.alphabet(_keeping(text.read(), kept))
        text.check_not_empty()
        forms = f"each of the text's {len(letters):,} characters, beginning a word and within one,"
        _check_vocab_size(vocab_size, named + 2 * len(letters), forms)
        again = _letting_go(kept) if kept else text.read()
        backend = wordpiece.learn(_and_then_learn(again, progress), letters, vocab_size, entries)
    else:
        _check_vocab_size(vocab_size, named + 256, "the 256 bytes")
        backend = bpe.learn(_and_then_learn(text.read(), progress), vocab_size, entries)
        text.check_not_empty()
    progress.at(_LEARNING, backend.get_vocab_size(), backend.get_vocab_size(), "entries")
    progress.end(_LEARNING)

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
    """The training documents as the trainers should see them, counted on the way."""

    def __init__(self, texts: Texts, matched: Sequence[str]) -> None:
        self.texts = texts
        self.matched = re.compile("|".join(map(re.escape, matched))) if matched else None
        self.documents = self.n_bytes = 0
        self.has_letters = False

    def read(self) -> Iterator[str]:
        """One pass: documents cut at the entries (which are matched, so never learned) and inside endless words."""
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
            raise InputError(
                f"There is no text to learn a tokenizer from: {self.documents:,} documents, {self.n_bytes:,} bytes, "
                "not one letter.",
                where="data.source",
                fix="check that the source names the right files, and what data.clean leaves of them",
            )


def _keeping(texts: Iterator[str], kept: list[str]) -> Iterator[str]:
    """Passes the texts through and adds them to `kept`, which is left empty where they take more than KEPT_BYTES."""
    room = KEPT_BYTES
    for text in texts:
        room -= sys.getsizeof(text)
        if room >= 0:
            kept.append(text)
        else:
            kept.clear()
        yield text


def _letting_go(kept: list[str]) -> Iterator[str]:
    """The texts in their order, each kept no longer: learning needs the memory."""
    kept.reverse()
    while kept:
        yield kept.pop()


def _and_then_learn(texts: Iterator[str], progress: Progress) -> Iterator[str]:
    """Passes the text through, then says that the trainer has all of it: what follows can take minutes."""
    yield from texts
    progress.at(_LEARNING, 0, 0, "entries")


def _cut(text: str) -> Iterator[str]:
    """Cuts words of more than LONGEST_RUN characters: the trainers' time grows with the square of a word's length."""
    # A longer run covers all that lies between some two multiples of the stride, so looking at these is enough to know.
    if not any(_UNCHANGED.match(text, at) for at in range(0, len(text) - _STRIDE, _STRIDE)):
        yield text
        return
    start = 0
    for run in _LONG_RUN.finditer(text):
        for end in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN):
            yield text[start:end]
            start = end
    yield text[start:]


def _check_vocab_size(vocab_size: int, least: int, what: str) -> None:
    if vocab_size < least:
        raise UsageError(
            f"A vocabulary of {vocab_size:,} entries is too small: the special tokens and {what} need {least:,}.",
            where="tokenizer.vocab_size",
            fix=f"set tokenizer.vocab_size to {least:,} or more (every entry above that is a learned piece)",
        )


def _check_entries(entries: Sequence[str], specials: Sequence[str]) -> None:
    """Raises UsageError, all faults together, unless every entry is a string that no learned piece can equal."""
    faults = [f"{name!r} is given {n} times" for name, n in Counter(entries).items() if n > 1]
    faults += [f"{name!r} is a special token already" for name in entries if name in specials]
    for name in dict.fromkeys(entries):
        # Byte-level decoding would take other letters for bytes; `##` marks a learned piece.
        if not (name.isascii() and name.isprintable()) or not name or " " in name or name.startswith("##"):
            faults.append(f"{name!r} is not made of printable ASCII characters without spaces, or begins with ##")
        elif re.fullmatch(r"'?\w+|[^\w\s]+", name):
            faults.append(f"{name!r} would collide with an ordinary word or sign of the same spelling")
    if faults:
        raise UsageError(
            "These vocabulary entries cannot be added: " + "; ".join(faults) + ".",
            where="entries",
            fix="give each once, in brackets like <name>",
        )
