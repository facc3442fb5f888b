"""Training, validation and test text: what `prepare` and the tokenizer's training consume.

The held-out text is what the config names, else what the source brings with it, else a share of the training
text, chosen by a digest of each document's own bytes. That choice knows no random state and no neighbours, so
that adding files never moves old validation text into training.

Exact repeats of a document leave training. Where the split is a share of the training text they leave both sides
(all copies would fall to one); held-out text that is named, or that the source brings, is scored row by row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
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
from acorn.text.text_files import TextFile
from acorn.text.transcoding import UTF8

NAMES = ("train", "valid", "test")
FEW_DOCUMENTS = 10  # in validation
_HEAD_BYTES = 64 << 10  # of a source, to tell whether it is WikiText


class TextSplits:
    """The documents of each split, streamed anew at every call. Memory: up to 48 bytes a document.

    Attributes:
        names: the splits there are, in the order of `NAMES`.
        automatic: validation is a share of the training text.
        has_wikitext: training text is WikiText, whose rare words are `<unk>`.
        counts: split -> facts of its last whole pass (the fields of `SplitCounts`).
        overlap: held-out split -> share of its distinct documents that are training documents too; known after
            a whole pass over `train`.
    """

    def __init__(self, data: DataConfig, corpora: dict[str, Corpus], has_wikitext: bool, progress: Progress) -> None:
        self.data = data
        self.automatic = "train" in corpora and "valid" not in corpora
        has = {*corpora, "valid"} if self.automatic else set(corpora)
        self.names = tuple(name for name in dict.fromkeys((*NAMES, *corpora)) if name in has)
        self.has_wikitext = has_wikitext
        self.counts: dict[str, dict[str, int]] = {}
        self.overlap: dict[str, float] = {}
        self._corpora = corpora
        self._progress = progress
        self._held_out: dict[str, HeldOut] | None = None
        self._repeats_told = False
        self._ignored: set[str] = set()  # columns that have been told of

    @classmethod
    def open(cls, data: DataConfig, progress: Progress = QUIET, out: Path | None = None) -> TextSplits:
        """Finds the text that `data` names and looks at its beginning.

        Args:
            out: the run folder that the text is for; a source folder that holds it is read without it.

        Raises:
            UsageError: a source cannot be understood.
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
    def parts(self) -> dict[str, Sequence[Part]]:
        """The files and datasets that are read, by split, in the order of reading."""
        return {split: corpus.parts for split, corpus in self._corpora.items()}

    @classmethod
    def open_held_out(
        cls, sources: Sequence[str], data: DataConfig, progress: Progress = QUIET, *, named_by: str = "--input"
    ) -> TextSplits:
        """All of `sources` as one split, whole: what an evaluation of other text scores.

        Args:
            named_by: the option or setting that names the sources; the split has this name.

        Raises:
            UsageError, InputError: as `open`.
        """
        parts = held_out_parts(resolve(sources, data, named_by, progress), "test")
        if data.encoding != UTF8:  # not told on the command line: the model's run had it
            progress.note(f"Text files are read as {data.encoding} (data.encoding).")
        return cls(data, {named_by: Corpus(parts, data)}, False, progress)

    def entries(self, kind: Literal["wordpiece", "bpe"]) -> tuple[str, ...]:
        """Strings of this text that a tokenizer of `kind` must hold as one entry: WikiText's mark of a rare word.

        Cleaning turns `<unk>` into `[UNK]`, which every WordPiece has anyway.
        """
        if not self.has_wikitext:
            return ()
        if self.data.clean == "none":
            return ("<unk>",)
        return () if kind == "wordpiece" else ("[UNK]",)

    def documents(self, split: str, task: str = "reading text") -> Iterator[Document]:
        """A pass over the documents of `split`: cleaned, without repeats (see above), the overlap policy applied.

        Args:
            split: one of `names`.
            task: what `progress` calls the pass.

        Raises:
            UsageError: there is no such split.
            InputError: for bad text (see `data.errors`) and damaged or changed files where they are met; at the end
                of the pass, where the split or the other side of an automatic split has no document or all documents
                are equal, and for overlap under `data.overlap = "fail"`.
        """
        if split not in self.names:
            hint = f"name it in data.{split}_source" if split in NAMES else f"the splits are {', '.join(self.names)}"
            raise UsageError(f"There is no {split} text.", where=f"split {split!r}", fix=hint)
        shared = self.automatic and split != "test"  # this pass reads both sides
        reading, rows = Reading(self.data.errors), Reading(self.data.errors)
        overlap = OverlapFilter(self.data, self._held_out_splits()) if split == "train" else None
        repeats = Repeats() if shared or (split == "train" and self.data.dedup) else None
        # Rows that became no document belong to no side of an automatic split: they are counted with training.
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
                f"The text repeats one document: of {repeats.documents:,} documents, 1 is distinct, and one cannot be "
                "split into training and validation.",
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
        if split not in self.counts and (told := losses.told()):
            self._progress.note(f"{split}: {told}.")
        self._tell_ignored(rows)
        self.counts[split] = dataclasses.asdict(reading.counts if shared and split == "valid" else both)

    def _tell_repeats(self, repeats: Repeats) -> None:
        """After the first whole pass over training text: what it repeats, and what became of that."""
        if self._repeats_told or not repeats.repeats:
            return
        self._repeats_told = True
        warning = "warning: " if repeats.mostly else ""
        before = " before the split into training and validation" if self.automatic else " from training"
        if self.data.dedup:
            self._progress.note(f"{warning}{repeats.told()} were dropped{before} (data.dedup=false keeps them).")
        elif repeats.mostly:
            self._progress.note(
                f"{warning}{repeats.told()} are kept (data.dedup=false), and all copies of one are on the same side of "
                "the split, so that the sizes of training and validation can be far from data.valid_fraction."
            )

    def _tell_few(self, documents: int, total: int) -> None:
        """After the first whole pass of an automatic split: that some whole files are a poor sample of all.

        Args:
            documents: of validation.
            total: of both sides; more than there are files, where some file is cut.
        """
        whole_files = total <= len(self._parts_of("train"))
        if documents < FEW_DOCUMENTS and whole_files and self._finer_unit(total) == "block":
            self._progress.note(
                f"warning: validation is {documents:,} whole {'file' if documents == 1 else 'files'}, which may differ "
                "much from the others. data.document=block takes pieces of every file instead."
            )

    def _tell_ignored(self, reading: Reading) -> None:
        """Says, once, which columns are not read."""
        fresh = {name: source for name, source in reading.ignored.items() if name not in self._ignored}
        self._ignored |= fresh.keys()
        for source in dict.fromkeys(fresh.values()):
            named = names_of(repr(name[:40]) for name, its in fresh.items() if its == source)
            self._progress.note(f"{source}: the text is the column {self.data.text_field!r}; not read: {named}.")

    def _held_out_splits(self) -> dict[str, HeldOut]:
        """The held-out splits that have a place of their own; the sides of an automatic split cannot overlap."""
        if self._held_out is None:
            self._held_out = {
                split: HeldOut(raw for raw, _, _ in corpus.rows(Reading(self.data.errors)))
                for split, corpus in self._corpora.items()
                if split != "train"
            }
        return self._held_out

    def _settle_overlap(self) -> None:
        """After a whole pass over training: the rates, said once; or the refusal."""
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
        """Raises InputError where the split just read, or the other side of an automatic split, has no document."""
        if counts.documents and other_side != 0:
            return
        left_out = f"; left out: {counts.dropped()}" if counts.dropped() else ""
        if not other_side and not counts.documents:
            read = sum(part.size for part in self._parts_of(split) if isinstance(part, TextFile))
            raise InputError(
                f"The text has no document (0 documents, {read:,} bytes){left_out}.",
                where=self._where(split),
                fix=_what_to_change(counts),
            )
        other = "valid" if split == "train" else "train"
        sides = {split: counts.documents, other: other_side or 0}
        total = sum(sides.values())
        remedies = ["give more text", "name validation text in data.valid_source"]
        if total > 1:  # one document is on one side, whatever the share is
            remedies.append("change data.valid_fraction")
        if unit := self._finer_unit(total):
            remedies.append(f'cut the text finer with data.document = "{unit}"')
        raise InputError(
            f"The {min(sides, key=lambda side: sides[side])} side of the split is empty: "
            f"{counted(sides['train'], 'document')} in train, {sides['valid']:,} in valid{left_out}.",
            where=f"data.valid_fraction = {self.data.valid_fraction}" if total > 1 else self._where("train"),
            fix=f"{', '.join(remedies[:-1])}, or {remedies[-1]}",
        )

    def _finer_unit(self, documents: int) -> Literal["block", "line", ""]:
        """What to set `data.document` to so that training text has more than `documents` distinct documents.

        Returns:
            the coarser of the units that do; "" where none does.
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
    """How a text of which nothing is left could give a document."""
    if counts.dropped_bad:
        return (
            "correct the bad rows, or name the encoding of text files in data.encoding; data.errors = strict shows one"
        )
    if counts.dropped_by_cleaning:
        return "set data.clean to none, or give other text"
    if counts.dropped_overlap:
        return "give text that is not held out as well, or set data.overlap to warn"
    return "give text that holds more than white space"


def _look_at(part: Part, data: DataConfig) -> tuple[bool, Reading]:
    """Whether the beginning of a part looks like WikiText; and the reading, which has seen its columns."""
    head, reading = bytearray(), Reading("skip")
    for raw, _, _ in Corpus((part,), data).rows(reading):
        head += raw[:_HEAD_BYTES] + b"\n"
        if len(head) > _HEAD_BYTES:
            break
    return looks_like_wikitext(bytes(head)), reading
