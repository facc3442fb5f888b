"""Estimates how many tokens a run's text has from its first part, for a plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from acorn.config import Config
from acorn.data.prepare import count_tokens
from acorn.progress import QUIET, Progress
from acorn.run.text import choose_tokenizer, open_prepared
from acorn.run_folder import RunFolder
from acorn.text.corpus import Document
from acorn.text.hub import is_on_the_hub
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer

FIRST_PART_BYTES = 8 << 20
"""Most bytes that are read of a split: of its text, and of its files. Reading, training a tokenizer and encoding this
much text takes seconds."""


@dataclass(frozen=True)
class TextEstimate:
    """The text of a run, as far as a plan knows it.

    Attributes:
        known: `whole`: all of it was counted; `part`: figures are scaled up from its first part; `hub`: a source is on
            the Hub, from which nothing is fetched; `none`: no text is named.
        vocab_size: of the run's tokenizer; if that is not known yet, the value in the config.
        train_tokens: tokens of the training split, separators included; None: unknown.
        train_bytes: UTF-8 bytes of its original text; None: unknown.
    """

    known: Literal["whole", "part", "hub", "none"]
    vocab_size: int
    train_tokens: int | None = None
    train_bytes: int | None = None


def estimate_text(config: Config, run: RunFolder, given: Tokenizer | None, progress: Progress) -> TextEstimate:
    """Reads the first part of every split, as a run of `config` would. Nothing is written or fetched.

    Args:
        run: the folder of the run; it is skipped if a source folder contains it.
        given: the tokenizer of the model that the run starts from.

    Raises:
        UsageError, InputError, DamageError: what the run would raise, as far as the first part and file sizes show it.
    """
    if config.data.shards:
        tokenizer, shards = open_prepared(config, run, given, check=False, progress=progress)
        count = shards.count("train")
        return TextEstimate("whole", tokenizer.vocab_size, count.tokens, count.bytes)
    if not config.data.source:
        return TextEstimate("none", config.model.vocab_size or _vocab_size_without_text(config, given))
    if any(map(is_on_the_hub, (*config.data.source, *config.data.valid_source, *config.data.test_source))):
        _read_local_sources(config, progress)
        return TextEstimate("hub", _vocab_size_without_text(config, given))
    return _estimate(config, run, given, progress)


def _estimate(config: Config, run: RunFolder, given: Tokenizer | None, progress: Progress) -> TextEstimate:
    part = _FirstPart(progress)
    texts = TextSplits.open(config.data, part, run.root)
    documents = list(part.read(texts, "train"))
    is_whole, share = part.is_whole, part.share
    for split in texts.names:
        if split != "train":
            for _ in part.read(texts, split):  # only to find its faults
                pass
    if not (documents or is_whole):  # the part has only repeats, which were all held out
        return TextEstimate("part", _vocab_size_without_text(config, given))
    tokenizer = choose_tokenizer(
        config,
        given,
        lambda: documents,
        texts.entries(config.tokenizer.kind),
        progress if is_whole else QUIET,  # not `progress`: a part of the text may give too few entries
    )
    count = count_tokens(documents, tokenizer)
    if is_whole:
        return TextEstimate("whole", tokenizer.vocab_size, count.tokens, count.bytes)
    is_chosen = given is not None or config.tokenizer.path
    vocab_size = tokenizer.vocab_size if is_chosen else config.tokenizer.vocab_size
    if share is None or not count.bytes:
        return TextEstimate("part", vocab_size)
    return TextEstimate("part", vocab_size, round(count.tokens / share), round(count.bytes / share))


def _read_local_sources(config: Config, progress: Progress) -> None:
    """Reads the first part of the sources that are on this machine, only to find their faults."""
    for name in ("source", "valid_source", "test_source"):
        sources, named_by = getattr(config.data, name), f"data.{name}"
        if local := [source for source in sources if not is_on_the_hub(source)]:
            part = _FirstPart(progress)
            for _ in part.read(TextSplits.open_held_out(local, config.data, part, named_by=named_by), named_by):
                pass


def _vocab_size_without_text(config: Config, given: Tokenizer | None) -> int:
    if given or config.tokenizer.path:
        return choose_tokenizer(config, given, lambda: (), (), QUIET).vocab_size
    return config.tokenizer.vocab_size


class _Enough(Exception):
    """Raised when the first part of a text was read."""


class _FirstPart:
    """A `Progress` that stops reading a text after its first part, and knows what share of the text that was.

    Attributes:
        is_whole: the last reading came to the end of the text.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begin()

    def _begin(self) -> None:
        self.is_whole = False
        self._bytes = 0  # of the documents returned
        self._marks: list[tuple[float, int]] = []  # bytes read of the files, and bytes of documents returned by then
        self._total = 0.0  # bytes of the files

    @property
    def share(self) -> float | None:
        """Share of the split that the last reading returned; None if the size of the text is unknown.

        The first mark is left out: readers read ahead at the start, and less so later.
        """
        if not self._total or len(self._marks) < 3:
            return None
        (first_read, first_bytes), (last_read, last_bytes) = self._marks[1], self._marks[-1]
        if last_read == first_read or last_bytes == first_bytes:
            return None
        whole = self._total * (last_bytes - first_bytes) / (last_read - first_read)
        return min(1.0, self._bytes / whole)

    def read(self, texts: TextSplits, split: str) -> Iterator[Document]:
        """The documents of the first part of `split`.

        Raises:
            InputError: the part that was read has a fault.
        """
        self._begin()
        task = f"reading the first part of {split}"
        try:
            for document in texts.documents(split, task):
                self._bytes += document.n_bytes
                yield document
            self.is_whole = True
        except _Enough:
            self._progress.end(task)

    def note(self, text: str) -> None:
        self._progress.note(text)

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        self._marks.append((done, self._bytes))
        self._total = total
        if self._bytes >= FIRST_PART_BYTES or done - self._marks[0][0] >= FIRST_PART_BYTES:
            raise _Enough
        self._progress.at(task, done, min(FIRST_PART_BYTES, total), unit)

    def end(self, task: str) -> None:
        self._progress.end(task)
