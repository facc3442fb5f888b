"""Training, validation and test text: what `prepare` and the tokenizer's training consume.

The held-out text is what the config names, else what the source brings with it, else a share of the training
text, chosen by a digest of each document's own bytes. That choice knows no random state and no neighbours, so
that adding files never moves old validation text into training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.progress import QUIET, Progress
from acorn.text.cleaning import looks_like_wikitext
from acorn.text.corpus import Corpus, Document
from acorn.text.digests import DigestSet, digest_of, fraction_of
from acorn.text.reading import Reading, SplitCounts
from acorn.text.sources import Part, resolve
from acorn.text.text_files import TextFile

_SNIFF_BYTES = 64 << 10
_NAMES = ("train", "valid", "test")


class TextSplits:
    """The documents of each split, streamed anew at every call. Memory: 24 to 48 bytes a document.

    Attributes:
        names: the splits there are, `train` first.
        counts: split -> facts of its first whole pass (see `SplitCounts`).
        overlap: held-out split -> share of its distinct documents that are training documents too; known after
            the first whole pass over `train`.
        has_wikitext: the training text is WikiText, so that `<unk>` is a vocabulary entry.
    """

    def __init__(self, data: DataConfig, corpora: dict[str, Corpus], progress: Progress) -> None:
        self.data = data
        self.automatic = corpora.get("valid") is None and "train" in corpora
        self.names = tuple(name for name in _NAMES if name in corpora or (name == "valid" and self.automatic))
        self.counts: dict[str, dict[str, int]] = {}
        self.overlap: dict[str, float] = {}
        self._corpora = corpora
        self._progress = progress
        self._held_out: dict[str, DigestSet] | None = None
        self.has_wikitext = data.clean == "wikitext" or any(map(self._is_wikitext, corpora[self.names[0]].parts[:1]))

    @classmethod
    def open(cls, data: DataConfig, progress: Progress = QUIET) -> TextSplits:
        """Finds the text that `data` names and looks at its beginning.

        Raises:
            UsageError: a source cannot be understood.
            InputError: a source matches nothing, cannot be reached, or cannot be read.
        """
        own = resolve(data.source, data, "data.source", progress)
        parts = {"train": own["train"]}
        for split, named in (("valid", data.valid_source), ("test", data.test_source)):
            if named:
                brought = resolve(named, data, f"data.{split}_source", progress)
                parts[split] = brought.get(split) or brought["train"]
            elif split in own:
                parts[split] = own[split]
        corpora = {split: Corpus(found, data) for split, found in parts.items()}
        if "valid" not in parts and len(parts["train"]) == 1:
            # One short file would be one document, and one document cannot be split.
            corpora["train"].cut_small = True
        return cls(data, corpora, progress)

    @classmethod
    def open_whole(cls, sources: Sequence[str], data: DataConfig, name: str = "test", progress: Progress = QUIET) -> TextSplits:
        """All of `sources` as the one split `name`, nothing held out or deduplicated: what an evaluation scores."""
        found = resolve(sources, data, "--input", progress)
        return cls(data, {name: Corpus(found.get(name) or found["train"], data)}, progress)

    def documents(self, split: str, task: str = "reading text") -> Iterator[Document]:
        """A pass over the documents of `split`: cleaned, and for `train` deduplicated, with the overlap policy applied.

        Args:
            split: one of `names`.
            task: what `progress` calls the pass.

        Raises:
            InputError: while it is read, for bad text under `data.errors`, a damaged or changed file, overlap under
                `data.overlap = "fail"`; at its end, where a side of the split has no document.
        """
        corpus = self._corpora["train" if self.automatic and split == "valid" else split]
        reading = Reading(self.data.errors)
        counts = reading.counts
        # With the automatic split, rows that belong to no side are counted with training alone.
        rows = Reading(self.data.errors) if self.automatic and split == "valid" else reading
        other_side = 0
        in_train = self._training_filter(counts) if split == "train" else None

        def wanted(digest: bytes) -> bool:
            nonlocal other_side
            if self.automatic and split != "test":
                held_out = fraction_of(digest) < self.data.valid_fraction
                if held_out != (split == "valid"):
                    other_side += 1
                    return False
            return in_train is None or in_train(digest)

        yield from corpus.documents(reading, rows=rows, wanted=wanted, progress=self._progress, task=task)
        if split == "train":
            self._settle_overlap()
        self._check_not_empty(split, counts, rows.counts, other_side)
        if split not in self.counts:
            self._note_losses(split, counts)
        self.counts[split] = dataclasses.asdict(counts)

    def _training_filter(self, counts: SplitCounts) -> Callable[[bytes], bool]:
        """Whether a training document stays; counts those that do not, and remembers overlap in `_found`."""
        seen = DigestSet()
        held_out = self._held_out_digests()
        self._found = {split: DigestSet() for split in held_out}

        def stays(digest: bytes) -> bool:
            overlaps = False
            for split, digests in held_out.items():
                if digest in digests:
                    overlaps = True
                    self._found[split].add(digest)
            if overlaps and self.data.overlap == "drop":
                counts.dropped_overlap += 1
                return False
            if self.data.dedup and not seen.add(digest):
                counts.dropped_duplicates += 1
                return False
            return True

        return stays

    def _held_out_digests(self) -> dict[str, DigestSet]:
        """Digests of held-out text that is read from its own place; the automatic split cannot overlap."""
        if self._held_out is None:
            self._held_out = {}
            for split in self.names:
                if split in self._corpora and split != "train":
                    self._held_out[split] = digests = DigestSet()
                    for raw, _, _ in self._corpora[split].rows(Reading(self.data.errors)):
                        digests.add(digest_of(raw))
        return self._held_out

    def _settle_overlap(self) -> None:
        """After a whole pass over training: the rates, said once; or the refusal."""
        first = not self.overlap
        found = {split: (len(self._found[split]), len(digests)) for split, digests in self._held_out_digests().items()}
        self.overlap = {split: here / max(1, all_of_it) for split, (here, all_of_it) in found.items()}
        if self.automatic:
            self.overlap["valid"] = 0.0
        shares = [
            f"{here:,} of {all_of_it:,} distinct {split} documents ({here / all_of_it:.2%})"
            for split, (here, all_of_it) in found.items()
            if here
        ]
        if not shares:
            return
        what = f"{' and '.join(shares)} are also training documents"
        if self.data.overlap == "fail":
            raise InputError(
                f"{what}.", where='data.overlap = "fail"', mend='take them out of the training text, or set data.overlap = "drop" or "warn"'
            )
        if first:
            self._progress.note(f"{what}{', and were dropped from training' if self.data.overlap == 'drop' else ''}.")

    def _check_not_empty(self, split: str, counts: SplitCounts, rows: SplitCounts, other_side: int) -> None:
        """Raises InputError where the split just read, or the other side of the automatic split, has no document."""
        if counts.documents and (other_side or not self.automatic or split == "test"):
            return
        dropped = dataclasses.replace(counts, dropped_empty=max(counts.dropped_empty, rows.dropped_empty)).dropped()
        dropped = f"; left out: {dropped}" if dropped else ""
        if self.automatic and split != "test" and counts.documents + other_side:
            sides = {split: counts.documents, "valid" if split == "train" else "train": other_side}
            empty = next(side for side in ("train", "valid") if not sides[side])
            raise InputError(
                f"The {empty} side of the text is empty: {sides['train']:,} documents for train, {sides['valid']:,} for valid{dropped}.",
                where=f"data.valid_fraction = {self.data.valid_fraction}",
                mend='give more text, name validation text in data.valid_source, change data.valid_fraction, or set data.document = "line"',
            )
        names = ", ".join(part.name for part in self._corpora.get(split, self._corpora[self.names[0]]).parts[:3])
        raise InputError(f"The {split} text is empty: 0 documents{dropped}.", where=names, mend="give text that holds more than white space")

    def _note_losses(self, split: str, counts: SplitCounts) -> None:
        if counts.dropped_bad or counts.replaced:
            self._progress.note(
                f"{split}: {counts.dropped_bad:,} bad rows left out, {counts.replaced:,} documents with U+FFFD in place of bad characters."
            )

    def _is_wikitext(self, part: Part) -> bool:
        """Whether the first 64 KiB of a part look like WikiText."""
        head, size = [], 0
        for raw, _, _ in Corpus((part,), self.data).rows(Reading("skip")):
            head.append(raw)
            size += len(raw)
            if size > _SNIFF_BYTES:
                break
        return looks_like_wikitext(b"\n".join(head)[:_SNIFF_BYTES])
