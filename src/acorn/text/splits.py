"""Training, validation and test text, as `prepare` and the training of a tokenizer read it.

The held-out text is the one named in the config, else the source's own, else a share of the training text. This
automatic split is decided by a digest of each document's bytes alone, without random state, so adding files never moves
old validation text into training.

Exact repeats of a document are dropped from training. In an automatic split they are dropped from both sides, since all
copies are on one side. Held-out text that the config names or the source has is scored row by row, repeats included.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from acorn.config import DataConfig
from acorn.counting import counted
from acorn.errors import InputError, UsageError
from acorn.progress import QUIET, Progress
from acorn.text.cleaning import looks_like_wikitext
from acorn.text.corpus import Corpus, Document
from acorn.text.digests import DigestSet, digest_limit, digest_of
from acorn.text.overlap import HeldOut, OverlapFilter, Repeats
from acorn.text.reading import Losses, Reading, SplitCounts, names_of
from acorn.text.sources import Part, held_out_parts, merged, resolve
from acorn.text.text_files import TextFile, open_text
from acorn.text.transcoding import UTF8, utf16_of

SPLIT_ORDER = ("train", "valid", "test")
FEW_VALID_DOCUMENTS = 10  # fewer whole files in validation than this get a warning
_HEAD_BYTES = 64 << 10  # read from a source to detect WikiText and UTF-16


class TextSplits:
    """The documents of each split, read again at every call. Memory: up to 48 bytes per document.

    Attributes:
        names: the existing splits, in the order of `SPLIT_ORDER`.
        automatic: validation is a share of the training text.
        has_wikitext: training text is WikiText, whose rare words are `<unk>`.
        counts: split -> counts of its last complete pass (the fields of `SplitCounts`).
        overlap: held-out split -> share of its distinct documents that are also training documents; known after a
            complete pass over `train`.
    """

    def __init__(self, data: DataConfig, corpora: dict[str, Corpus], has_wikitext: bool, progress: Progress) -> None:
        self.data = data
        self.automatic = "train" in corpora and "valid" not in corpora
        has = {*corpora, "valid"} if self.automatic else set(corpora)
        self.names = tuple(name for name in dict.fromkeys((*SPLIT_ORDER, *corpora)) if name in has)
        self.has_wikitext = has_wikitext
        self.counts: dict[str, dict[str, int]] = {}
        self.overlap: dict[str, float] = {}
        self._corpora = corpora
        self._progress = progress
        self._held_out: dict[str, HeldOut] | None = None
        self._repeats_told = False
        self._ignored: set[str] = set()  # columns that a note has named

    @classmethod
    def open(cls, data: DataConfig, progress: Progress = QUIET, out: Path | None = None) -> TextSplits:
        """Finds the text that `data` names and reads its beginning.

        Args:
            out: the run folder that the text is for; it is skipped if it is inside a source folder.

        Raises:
            UsageError: a source has an unknown form.
            InputError: a source matches nothing, cannot be reached, or cannot be read.
        """
        sources = resolve(data.source, data, "data.source", progress, out)
        own = merged(sources)
        parts = {"train": own["train"]}
        for split, named in (("valid", data.valid_source), ("test", data.test_source)):
            if named:
                parts[split] = held_out_parts(resolve(named, data, f"data.{split}_source", progress, out), split)
            elif split in own:
                parts[split] = own[split]
        _check_encodings(parts.values(), data)
        corpora = {split: Corpus(found, data) for split, found in parts.items()}
        # One short file would be one document, and one document cannot be split.
        corpora["train"].cut_small = "valid" not in parts and len(parts["train"]) == 1
        firsts = [splits["train"][0] for splits in sources if splits["train"]]
        looks = [_look_at(part, data) for part in firsts]
        has_wikitext = data.clean == "wikitext" or any(is_wikitext for is_wikitext, _ in looks)
        splits = cls(data, corpora, has_wikitext, progress)
        for _, reading in looks:
            splits._tell_ignored(reading)
        return splits

    @property
    def corpora(self) -> dict[str, Corpus]:
        """The text that each split is read from; an automatic validation split is read from that of `train`."""
        return dict(self._corpora)

    @property
    def parts(self) -> dict[str, Sequence[Part]]:
        """The files and datasets of each split, in reading order."""
        return {split: corpus.parts for split, corpus in self._corpora.items()}

    @classmethod
    def open_held_out(
        cls, sources: Sequence[str], data: DataConfig, progress: Progress = QUIET, *, named_by: str = "--input"
    ) -> TextSplits:
        """All of `sources` as one split, for an evaluation of another text.

        Args:
            named_by: the option or setting that names the sources; it is also the name of the split.

        Raises:
            UsageError: a source has an unknown form.
            InputError: a source matches nothing, cannot be reached, or cannot be read.
        """
        parts = held_out_parts(resolve(sources, data, named_by, progress), "test")
        _check_encodings([parts], data)
        if data.encoding != UTF8:  # it comes from the run of the model, not from the command line
            progress.note(f"Text files are read as {data.encoding} (data.encoding).")
        return cls(data, {named_by: Corpus(parts, data)}, False, progress)

    def entries(self, kind: Literal["wordpiece", "bpe"]) -> tuple[str, ...]:
        """Strings of this text that must be one vocabulary entry each: WikiText's mark for a rare word.

        Cleaning replaces `<unk>` by `[UNK]`, which is in the vocabulary of every WordPiece tokenizer.
        """
        if not self.has_wikitext:
            return ()
        if self.data.clean == "none":
            return ("<unk>",)
        return () if kind == "wordpiece" else ("[UNK]",)

    def documents(self, split: str, task: str = "reading files") -> Iterator[Document]:
        """Yields the documents of `split`: cleaned, without repeats (see above), with the overlap policy applied.

        Args:
            split: one of `names`.
            task: the name of the pass for `progress`.

        Raises:
            UsageError: there is no such split.
            InputError: text is bad (see `data.errors`), or a file is damaged or changed. At the end of the pass: the
                split, or the other side of an automatic split, has no document; all documents are equal; or documents
                overlap and `data.overlap` is "fail".
        """
        if split not in self.names:
            hint = (
                f"name it in data.{split}_source" if split in SPLIT_ORDER else f"the splits are {', '.join(self.names)}"
            )
            raise UsageError(f"There is no {split} text.", where=f"split {split!r}", fix=hint)
        shared = self.automatic and split != "test"  # this pass reads both sides
        reading, rows = Reading(self.data.errors), Reading(self.data.errors)
        overlap = OverlapFilter(self.data, self._held_out_splits()) if split == "train" else None
        repeats = Repeats() if shared or (split == "train" and self.data.dedup) else None
        # Rows that did not become documents belong to neither side of an automatic split: training counts them.
        losses = Losses(reading) if shared and split == "valid" else Losses(reading, rows)
        other_side, limit = 0, digest_limit(self.data.valid_fraction)

        def wanted(raw: bytes) -> bool:
            nonlocal other_side
            digest = digest_of(raw)
            repeated = repeats is not None and repeats.is_repeat(digest, len(raw)) and self.data.dedup
            if shared and (digest < limit) != (split == "valid"):
                other_side += not repeated
                return False
            if overlap and overlap.drops(digest, len(raw)):
                reading.counts.dropped_overlap += 1
                return False
            reading.counts.dropped_duplicates += repeated
            return not repeated

        yield from self._corpora["train" if shared else split].documents(
            reading,
            rows=rows,
            wanted=wanted if shared or split == "train" else None,
            progress=self._progress,
            task=task,
            source_ends=losses.source_ends,
        )
        both = reading.counts + rows.counts
        if shared and repeats and repeats.distinct == 1 < repeats.documents:
            raise InputError(
                f"The text repeats one document: of {repeats.documents:,} documents, 1 is distinct, and one document "
                "cannot be split into training and validation.",
                where=self._where("train"),
                fix="give more text, or name validation text in data.valid_source",
            )
        self._check_not_empty(split, both, other_side if shared else None)
        if repeats:
            self._tell_repeats(repeats)
        if shared and not self.counts:
            self._tell_few(other_side if split == "train" else both.documents, both.documents + other_side)
        if overlap:
            self._settle_overlap()
        if split not in self.counts and (summary := losses.summary()):
            self._progress.note(f"{split}: {summary}.")
        self._tell_ignored(rows)
        self.counts[split] = dataclasses.asdict(reading.counts if shared and split == "valid" else both)

    def _tell_repeats(self, repeats: Repeats) -> None:
        """After the first complete pass over training text: notes the repeats and what was done about them."""
        if self._repeats_told or not repeats.repeats:
            return
        self._repeats_told = True
        warning = "warning: " if repeats.are_majority else ""
        before = " before the split into training and validation" if self.automatic else " from training"
        if self.data.dedup:
            self._progress.note(f"{warning}{repeats.summary()} were dropped{before} (data.dedup=false keeps them).")
        elif repeats.are_majority:
            self._progress.note(
                f"{warning}{repeats.summary()} are kept (data.dedup=false). All copies of a document are on the same "
                "side of the split, so the sizes of training and validation can be far from data.valid_fraction."
            )

    def _tell_few(self, documents: int, total: int) -> None:
        """After the first complete pass of an automatic split: warns if validation is only a few whole files.

        Args:
            documents: number in validation.
            total: number on both sides; it exceeds the number of files if some file is cut.
        """
        whole_files = total <= len(self._parts_of("train"))
        if documents < FEW_VALID_DOCUMENTS and whole_files and self._finer_unit(total) == "block":
            self._progress.note(
                f"warning: validation is {documents:,} whole {'file' if documents == 1 else 'files'}, which may differ "
                "a lot from the others. data.document=block takes pieces of every file instead."
            )

    def _tell_ignored(self, reading: Reading) -> None:
        """Notes, once per column, which columns are not read."""
        fresh = {name: source for name, source in reading.ignored.items() if name not in self._ignored}
        self._ignored |= fresh.keys()
        for source in dict.fromkeys(fresh.values()):
            named = names_of(repr(name[:40]) for name, its in fresh.items() if its == source)
            self._progress.note(f"{source}: the text is the column {self.data.text_field!r}; not read: {named}.")

    def _held_out_splits(self) -> dict[str, HeldOut]:
        """The held-out splits with their own source. (The sides of an automatic split cannot overlap.)"""
        if self._held_out is None:
            self._held_out = {
                split: HeldOut(raw for raw, _, _ in corpus.rows(Reading(self.data.errors)))
                for split, corpus in self._corpora.items()
                if split != "train"
            }
        return self._held_out

    def _settle_overlap(self) -> None:
        """After a complete pass over training: notes the overlap, once, or raises InputError."""
        first = not self.overlap
        held_out = {split: found for split, found in self._held_out_splits().items() if len(found)}
        self.overlap = {"valid": 0.0} if self.automatic else {}
        self.overlap |= {split: found.met / len(found) for split, found in held_out.items()}
        shares = [
            f"{found.met:,} of {len(found):,} distinct {split} documents ({found.met / len(found):.2%}; "
            f"{found.bytes_met / found.bytes:.2%} of their bytes)"
            for split, found in held_out.items()
            if found.met
        ]
        if not shares:
            return
        what = f"{' and '.join(shares)} are also training documents"
        if self.data.overlap == "fail":
            hint = 'take them out of the training text, or set data.overlap to "drop" or "warn"'
            raise InputError(f"{what}.", where='data.overlap = "fail"', fix=hint)
        if first:
            dropped = ", and were dropped from training" if self.data.overlap == "drop" else ""
            self._progress.note(f"{what}{dropped}.")

    def _check_not_empty(self, split: str, counts: SplitCounts, other_side: int | None) -> None:
        """Raises InputError if the split just read, or the other side of an automatic split, has no document."""
        if counts.documents and other_side != 0:
            return
        dropped = f"; dropped: {counts.dropped()}" if counts.dropped() else ""
        if not other_side and not counts.documents:
            parts = self._parts_of(split)
            read = sum(part.size for part in parts if isinstance(part, TextFile))
            is_empty = not read and all(isinstance(part, TextFile) for part in parts)
            what = names_of(part.name for part in parts) if len(parts) == 1 else "All text"
            raise InputError(
                f"{what} is empty."
                if is_empty
                else f"The text has no document (0 documents, {read:,} bytes){dropped}.",
                where=self._where(split),
                fix="name a file with text" if is_empty else _what_to_change(counts),
            )
        other = "valid" if split == "train" else "train"
        sides = {split: counts.documents, other: other_side or 0}
        total = sum(sides.values())
        remedies = ["give more text", "name validation text in data.valid_source"]
        if total > 1:  # one document is on one side, whatever the fraction is
            remedies.append("change data.valid_fraction")
        if unit := self._finer_unit(total):
            remedies.append(f'cut the text finer with data.document = "{unit}"')
        raise InputError(
            f"There is too little text to hold out a part of it for "
            f"{'training' if sides['valid'] else 'validation'}: "
            f"{counted(sides['train'], 'document')} for training, {sides['valid']:,} for validation{dropped}.",
            where=f"data.valid_fraction = {self.data.valid_fraction}" if total > 1 else self._where("train"),
            fix=f"{', '.join(remedies[:-1])}, or {remedies[-1]}",
        )

    def _finer_unit(self, documents: int) -> Literal["block", "line", ""]:
        """The value of `data.document` with which training text has more than `documents` distinct documents.

        Returns:
            the coarsest such unit; "" if there is none.
        """
        by_lines = self.data.document == "line" or (self.data.document == "auto" and self.has_wikitext)
        parts = self._parts_of("train")
        if by_lines or not all(isinstance(part, TextFile) and part.form == "txt" for part in parts):
            return ""
        cut_small = self._corpora["train"].cut_small and self.data.document == "auto"
        in_blocks = cut_small or self.data.document == "block"
        units: tuple[Literal["block", "line"], ...] = ("line",) if in_blocks else ("block", "line")
        for unit in units:
            found = DigestSet()
            for raw, _, _ in Corpus(parts, self.data.model_copy(update={"document": unit})).rows(Reading("skip")):
                if found.add(digest_of(raw)) and len(found) > documents:
                    return unit
        return ""

    def _parts_of(self, split: str) -> Sequence[Part]:
        return self._corpora[split if split in self._corpora else "train"].parts

    def _where(self, split: str) -> str:
        return f"{split}: {names_of(part.name for part in self._parts_of(split))}"


def _what_to_change(counts: SplitCounts) -> str:
    """Advice for a text that has no document left."""
    if counts.dropped_bad:
        return (
            "correct the bad rows (data.errors=strict shows the first one), or set data.encoding to the encoding of "
            "the text files"
        )
    if counts.dropped_by_cleaning:
        return "set data.clean=none, or use other text"
    if counts.dropped_overlap:
        return "add text that is not held out too, or set data.overlap=warn"
    return "use text that contains more than white space"


def _check_encodings(splits: Iterable[Sequence[Part]], data: DataConfig) -> None:
    """Refuses UTF-16 that is read as UTF-8, in any split, before anything is made from another one.

    Raises:
        InputError: a file begins like UTF-16, and `data.errors` is "strict".
    """
    if data.errors != "strict" or data.encoding != UTF8:
        return
    for part in itertools.chain.from_iterable(splits):
        if not isinstance(part, TextFile) or part.form == "parquet":
            continue
        with open_text(part) as file:
            encoding = utf16_of(file.bytes.read(_HEAD_BYTES))
        if encoding:
            raise InputError(
                f"This text is not UTF-8: the file begins like {encoding.upper()}.",
                where=part.name,
                fix=f"set data.encoding={encoding}, or convert the file to UTF-8",
            )


def _look_at(part: Part, data: DataConfig) -> tuple[bool, Reading]:
    """Whether the beginning of a part looks like WikiText, and the `Reading`, which knows the part's columns."""
    head, reading = bytearray(), Reading("skip")
    for raw, _, _ in Corpus((part,), data).rows(reading):
        head += raw[:_HEAD_BYTES] + b"\n"
        if len(head) > _HEAD_BYTES:
            break
    return looks_like_wikitext(bytes(head)), reading
