"""Makes token shards from all parts of a text: the same bytes that `acorn data prepare` without parts makes.

The rows of the parts are read first: they tell the split, the repeats and all counts. Then the tokens of the documents
that are kept are copied, in the order of the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acorn.counting import counted
from acorn.data.part import PART_VERSION
from acorn.data.part_rows import COUNTED, PieceFiles, Rows, digest_halves, digest_list
from acorn.data.prepare import MEASURED_DOCUMENTS, check_room, new_manifest, split_summary
from acorn.data.repeated_rows import RepeatedRows
from acorn.data.token_shards import DTYPES, PART_FORMAT, ShardWriter, SplitCount, TokenShards
from acorn.errors import DamageError, InputError
from acorn.files import is_sealed, read_json
from acorn.folders import new_folder, verify_folder
from acorn.progress import QUIET, Progress
from acorn.run_folder import MANIFEST, TOKENIZER
from acorn.text.digests import digest_limit
from acorn.text.overlap import RepeatCounts
from acorn.text.pieces import FileIdentity, differences
from acorn.text.reading import SplitCounts, names_of
from acorn.text.splits import SPLIT_ORDER
from acorn.tokenizer.tokenizer import Tokenizer

_TRAIN_OR_VALID = ("train", "valid")


@dataclass(frozen=True)
class Parts:
    """All parts of a text.

    Attributes:
        folders: of part 1, part 2 and so on.
        plan: the manifest of part 1; apart from the number, all agree.
    """

    folders: tuple[Path, ...]
    plan: dict[str, Any]

    @classmethod
    def open(cls, folders: Sequence[Path], progress: Progress = QUIET) -> Parts:
        """Opens the parts, in any order, and checks all of them.

        Raises:
            InputError: a folder is not a complete part, a part is missing or doubled, or the parts were made from other
                text, with another tokenizer or with other settings.
            DamageError: a file of a part is missing or was changed.
        """
        plans = [(folder, _read_plan(folder)) for folder in folders]
        first_folder, first = plans[0]
        for folder, plan in plans[1:]:
            if faults := _disagreements(plan, first):
                raise InputError(
                    f"The parts {folder} and {first_folder} do not belong together:\n  " + "\n  ".join(faults),
                    where=str(folder),
                    fix="make all parts from the same text, with the same tokenizer and the same settings",
                )
        by_number: dict[int, Path] = {}
        for folder, plan in plans:
            if plan["part"] in by_number:
                raise InputError(
                    f"Part {plan['part']} of {plan['parts']} is named twice: {by_number[plan['part']]} and {folder}.",
                    where=str(folder),
                    fix="name each part once",
                )
            by_number[plan["part"]] = folder
        missing = [str(number) for number in range(1, first["parts"] + 1) if number not in by_number]
        if missing:
            raise InputError(
                f"{counted(len(missing), 'part')} of {first['parts']} {'is' if len(missing) == 1 else 'are'} missing: "
                f"{names_of(missing)}.",
                where="acorn data merge",
                fix="make the missing parts with `acorn data prepare --part`, and name all folders",
            )
        ordered = tuple(by_number[number] for number in sorted(by_number))
        if damaged := [fault for folder in ordered for fault in verify_folder(folder, progress)]:
            raise DamageError(
                "These parts are damaged:\n  " + "\n  ".join(damaged),
                where=str(ordered[0].parent),
                fix="restore them from a copy, or remove their folders and make these parts again",
            )
        return cls(ordered, first)

    def pieces(self, corpus: str) -> Iterator[PieceFiles]:
        """The pieces of a corpus, in the order of the text."""
        total, parts = self.plan["text"][corpus]["pieces"], len(self.folders)
        for part, folder in enumerate(self.folders):
            for number in range(part * total // parts, (part + 1) * total // parts):
                yield PieceFiles(folder, corpus, number)

    def row_chunks(self, corpus: str) -> Iterator[Rows]:
        for piece in self.pieces(corpus):
            yield from piece.row_chunks()


def merge(folders: Sequence[Path], out: Path, *, progress: Progress = QUIET) -> TokenShards:
    """Merges all parts of a text, in any order, into the new folder `out` of token shards.

    Memory: some hundred megabytes, one bit for each row, and about 100 bytes for each row of held-out text that has a
    source of its own.

    Raises:
        UsageError: `out` exists.
        InputError: see `Parts.open`; or a split has no document, or held-out text is in training under
            `data.overlap = "fail"`.
        DamageError: a file of a part is missing or was changed.
        ResourceError: the disk is too small.
    """
    parts = Parts.open(folders, progress)
    tokenizer = Tokenizer.from_file(parts.folders[0] / TOKENIZER, as_it_is=True)
    manifest = new_manifest(tokenizer)
    with new_folder(out, extra=manifest) as folder:
        tokenizer.save(folder / TOKENIZER)
        text = _Text(parts, folder, progress)
        splits = [_Selection(text, split) for split in text.names]
        for selection in splits:
            selection.count()
        for selection in splits:
            selection.check()
        text.check_overlap()
        for selection in splits:
            _write(selection, tokenizer, folder, manifest, progress)
        manifest["text"] = {
            "clean": parts.plan["settings"]["clean"],
            "counts": {selection.split: asdict(selection.counts) for selection in splits},
            "overlap": text.overlap(),
        }
    return TokenShards.open(out)


def _read_plan(folder: Path) -> dict[str, Any]:
    """The manifest of the part in `folder`.

    Raises:
        InputError: it is not a part, or not complete.
        DamageError: its manifest was changed.
    """
    manifest = folder / MANIFEST
    unfinished = folder.with_name(f"{folder.name}.new")
    if not manifest.is_file():
        began = unfinished.is_dir() or folder.name.endswith(".new")
        raise InputError(
            "This part is not complete." if began else f"There is no part of a text here: {MANIFEST} is missing.",
            where=str(folder),
            fix="run the command that makes this part again; it goes on where it stopped"
            if began
            else "name folders made by `acorn data prepare --part`",
        )
    plan = read_json(manifest)
    if not isinstance(plan, dict) or plan.get("format") != PART_FORMAT:
        raise InputError(
            "This folder does not hold a part of a text.",
            where=str(folder),
            fix="name folders made by `acorn data prepare --part`",
        )
    if not is_sealed(plan):
        raise DamageError(
            f"{MANIFEST} was changed after it was written (its SHA-256 differs).",
            where=str(manifest),
            fix="restore it from a copy, or remove the folder and make this part again",
        )
    if plan["version"] != PART_VERSION:
        raise InputError(
            f"This part has format version {plan['version']}; this version of acorn reads {PART_VERSION}.",
            where=str(folder),
            fix="make all parts with the same version of acorn as the one that merges them",
        )
    return plan


def _disagreements(plan: dict[str, Any], first: dict[str, Any]) -> list[str]:
    """Why two parts do not belong together, one line each."""
    faults = []
    if plan["parts"] != first["parts"]:
        faults.append(
            f"one is part {plan['part']} of {plan['parts']}, the other part {first['part']} of {first['parts']}"
        )
    if plan["tokenizer"] != first["tokenizer"]:
        faults.append(f"the tokenizers differ: SHA-256 {plan['tokenizer']} and {first['tokenizer']}")
    for name, value in plan["settings"].items():
        if value != first["settings"][name]:
            faults.append(f"data.{name} is {value!r} and {first['settings'][name]!r}")
    for split in dict.fromkeys([*plan["text"], *first["text"]]):
        texts = [its["text"].get(split) for its in (plan, first)]
        if None in texts:
            faults.append(f"only one of them has {split} text")
            continue
        files = [[FileIdentity(**entry) for entry in text["files"]] for text in texts]
        faults += [f"{split} text: {line}" for line in differences(*files)[:3]]
        if texts[0]["piece_bytes"] != texts[1]["piece_bytes"]:
            sizes = [text["piece_bytes"] for text in texts]
            faults.append(f"{split} text is cut into pieces of {sizes[0]:,} and {sizes[1]:,} bytes")
    return faults


class _HeldOut:
    """The distinct rows of a held-out split with its own source, and which of them are in training."""

    def __init__(self, chunks: Iterator[Rows]) -> None:
        chosen = [chunk[["digest", "bytes"]].copy() for chunk in chunks]
        rows = np.concatenate(chosen) if chosen else np.zeros(0, [("digest", "S16"), ("bytes", "<u8")])
        self.digests, first = np.unique(rows["digest"], return_index=True)
        self._bytes = rows["bytes"][first].astype(np.int64)
        self._met = np.zeros(len(first), bool)

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def met(self) -> int:
        return int(self._met.sum())

    @property
    def bytes(self) -> int:
        return int(self._bytes.sum())

    @property
    def bytes_met(self) -> int:
        return int(self._bytes[self._met].sum())

    def meet(self, digests: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Which training rows are held out too. These are remembered."""
        if not len(self.digests):
            return np.zeros(len(digests), bool)
        at = np.minimum(np.searchsorted(self.digests, digests), len(self.digests) - 1)
        is_held_out: NDArray[np.bool_] = self.digests[at] == digests
        self._met[at[is_held_out]] = True
        return is_held_out


class _Text:
    """What decides which rows are kept: the repeats of the whole text, and the text that is held out by name."""

    def __init__(self, parts: Parts, folder: Path, progress: Progress) -> None:
        self.parts, self.folder, self.progress = parts, folder, progress
        self.settings = parts.plan["settings"]
        corpora = parts.plan["text"]
        self.automatic = "valid" not in corpora
        self.names = tuple(name for name in SPLIT_ORDER if name in corpora or (name == "valid" and self.automatic))
        self.limit = np.uint64(int.from_bytes(digest_limit(self.settings["valid_fraction"]), "big"))
        self.held_out = {split: _HeldOut(parts.row_chunks(split)) for split in corpora if split != "train"}
        count = sum(piece.row_count() for piece in parts.pieces("train"))
        digests = (chunk["digest"] for chunk in parts.row_chunks("train"))
        self.repeats = RepeatedRows.find(digests, count, folder)
        self._tell_repeats()

    def _tell_repeats(self) -> None:
        """Notes the repeats of training text and what was done about them.

        Raises:
            InputError: the text is one document, repeated, and must be split.
        """
        found = RepeatCounts()
        for chunk in self.parts.row_chunks("train"):
            repeated = self.repeats[found.documents : found.documents + len(chunk)]
            found.documents += len(chunk)
            found.bytes += int(chunk["bytes"].sum())
            found.repeats += int(repeated.sum())
            found.repeated_bytes += int(chunk["bytes"][repeated].sum())
        if self.automatic and found.distinct == 1 < found.documents:
            raise InputError(
                f"The text repeats one document: of {found.documents:,} documents, 1 is distinct, and one document "
                "cannot be split into training and validation.",
                where="train",
                fix="make the parts again from more text, or name validation text in data.valid_source",
            )
        if found.repeats:
            warning = "warning: " if found.are_majority else ""
            what = "were dropped" if self.settings["dedup"] else "are kept (data.dedup=false)"
            self.progress.note(f"{warning}{found.summary()} {what}.")

    def overlap(self) -> dict[str, float]:
        """Held-out split -> share of its distinct documents that are training documents too."""
        shares = {split: found.met / len(found) for split, found in self.held_out.items() if len(found)}
        return {"valid": 0.0, **shares} if self.automatic else shares

    def check_overlap(self) -> None:
        """Notes held-out documents that are also in training.

        Raises:
            InputError: there are some, and `data.overlap` is "fail".
        """
        shares = [
            f"{found.met:,} of {len(found):,} distinct {split} documents ({found.met / len(found):.2%}; "
            f"{found.bytes_met / found.bytes:.2%} of their bytes)"
            for split, found in self.held_out.items()
            if found.met
        ]
        if not shares:
            return
        what = f"{' and '.join(shares)} are also training documents"
        if self.settings["overlap"] == "fail":
            hint = 'make the parts again without them, or with data.overlap set to "drop" or "warn"'
            raise InputError(f"{what}.", where='data.overlap = "fail"', fix=hint)
        dropped = ", and were dropped from training" if self.settings["overlap"] == "drop" else ""
        self.progress.note(f"{what}{dropped}.")


@dataclass
class _Selection:
    """The rows of one split.

    Attributes:
        counts: what became of its rows, as `TextSplits.counts`.
        size: its documents, without the last separator.
        unspelled: tokens of text that the vocabulary cannot represent.
        digest: of the texts of its documents.
        measured: how well the tokenizer fits; None for training text.
    """

    text: _Text
    split: str
    counts: SplitCounts = field(default_factory=SplitCounts)
    size: SplitCount = field(default_factory=SplitCount)
    unspelled: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    measured: _Measured | None = None

    @property
    def corpus(self) -> str:
        return "train" if self.text.automatic and self.split == "valid" else self.split

    @property
    def _is_side(self) -> bool:
        """Whether the split is a side of training text that is split automatically."""
        return self.text.automatic and self.split in _TRAIN_OR_VALID

    def kept(self) -> Iterator[tuple[PieceFiles, Iterator[tuple[Rows, NDArray[np.bool_]]]]]:
        """For each piece, its rows in chunks, and which of them are documents of this split."""
        self._row = 0
        self._dropped = [0, 0]
        for piece in self.text.parts.pieces(self.corpus):
            yield piece, ((rows, self._wanted(rows) & (rows["documents"] > 0)) for rows in piece.row_chunks())

    def _wanted(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows belong to the split and are neither repeats nor held out, in the order of `TextSplits`."""
        wanted = np.ones(len(rows), bool)
        if self.corpus != "train":
            return wanted
        repeated = np.zeros(len(rows), bool)
        if self.text.settings["dedup"]:
            repeated = self.text.repeats[self._row : self._row + len(rows)]
        self._row += len(rows)
        if self._is_side:
            wanted = (digest_halves(rows["digest"])[0] < self.text.limit) == (self.split == "valid")
        if self.split == "train":
            held_out = np.zeros(len(rows), bool)
            at = np.flatnonzero(wanted)
            for found in self.text.held_out.values():
                held_out[at] |= found.meet(rows["digest"][at])
            if self.text.settings["overlap"] == "drop":
                self._dropped[1] += int((wanted & held_out).sum())
                wanted &= ~held_out
        self._dropped[0] += int((wanted & repeated).sum())
        return wanted & ~repeated

    def count(self) -> None:
        """Counts the split, from the rows alone."""
        if self.split != "train":
            self.measured = _Measured()
        totals = dict.fromkeys((*COUNTED, "bytes", "words", "tokens", "unknown"), 0)
        self._row, self._dropped = 0, [0, 0]
        for piece in self.text.parts.pieces(self.corpus):
            for rows in piece.row_chunks():
                wanted = rows[self._wanted(rows)]
                documents = wanted[wanted["documents"] > 0]
                for name in COUNTED:
                    totals[name] += int(wanted[name].sum())
                for name in ("bytes", "words", "tokens", "unknown"):
                    totals[name] += int(documents[name].sum())
                self.unspelled += int(documents["unspelled"].sum())
                self.digest.update(np.ascontiguousarray(documents["text_digest"]).tobytes())
                if self.measured:
                    self.measured.add(documents, rows)
            if not (self._is_side and self.split == "valid"):  # training counts what belongs to neither side
                self.counts += piece.counts()
        known = {entry.name for entry in fields(SplitCounts)}
        self.counts += SplitCounts(
            **{name: value for name, value in totals.items() if name in known},
            dropped_duplicates=self._dropped[0],
            dropped_overlap=self._dropped[1],
        )
        self.size = SplitCount(
            documents=totals["documents"],
            tokens=totals["tokens"],
            bytes=totals["bytes"],
            words=totals["words"],
            unknown_tokens=totals["unknown"],
        )

    def check(self) -> None:
        """Raises InputError if the split has no document."""
        if self.size.documents:
            return
        dropped = f"; dropped: {self.counts.dropped()}" if self.counts.dropped() else ""
        raise InputError(
            f"The {self.split} text has no document{dropped}.",
            where=self.split,
            fix="make the parts again from more text"
            + (", or with another data.valid_fraction" if self._is_side else ""),
        )


class _Measured:
    """How well the tokenizer fits the first documents of a held-out split."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int, int]] = {}
        self._documents = self._bytes = self._tokens = self._words = self._kept = 0

    def add(self, documents: Rows, rows: Rows) -> None:
        """Adds the next documents of the split, until there are enough.

        Args:
            documents: the documents.
            rows: all rows that were read, among them those that were measured.
        """
        missing = MEASURED_DOCUMENTS - self._documents
        if missing <= 0:
            return
        measured = rows[rows["measured"] > 0]
        counts = zip(measured["text_words"].tolist(), measured["kept_words"].tolist(), strict=True)
        self._known.update(zip(digest_list(measured["digest"]), counts, strict=True))
        documents = documents[:missing]
        for digest in digest_list(documents["digest"]):
            words, kept = self._known[digest]
            self._words += words
            self._kept += kept
        self._documents += len(documents)
        self._bytes += int(documents["bytes"].sum())
        self._tokens += int(documents["tokens"].sum())

    def report(self, start_tokens: int) -> dict[str, float]:
        """The figures of `TokenizerReport` that a manifest has.

        Args:
            start_tokens: separators of each document.
        """
        tokens = self._tokens - start_tokens * self._documents
        return {
            "round_trip_rate": self._kept / self._words if self._words else 1.0,
            "bytes_per_token": self._bytes / tokens if tokens else 0.0,
        }


def _write(
    selection: _Selection, tokenizer: Tokenizer, folder: Path, manifest: dict[str, Any], progress: Progress
) -> None:
    """Copies the tokens of a split into shards, and describes it in the manifest."""
    split, size = selection.split, selection.size
    dtype = DTYPES[manifest["dtype"]]
    writer = ShardWriter(folder, split, manifest["dtype"], selection.text.settings["shard_tokens"])
    check_room(folder, split, (size.tokens + 1) * dtype.itemsize)
    task, done = f"merging {split}", 0
    for piece, chunks in selection.kept():
        tokens = piece.token_reader(dtype)
        for rows, keep in chunks:
            for ids in tokens.wanted(rows["tokens"].astype(np.int64), keep):
                writer.append(ids)
                done += len(ids)
            progress.at(task, done, size.tokens, "tokens")
    progress.end(task)
    writer.append(np.array([tokenizer.separator_id], np.uint32))
    count = size + SplitCount(tokens=1)
    text_tokens = size.tokens - size.documents * len(tokenizer.document_start)
    report = selection.measured.report(len(tokenizer.document_start)) if selection.measured else {}
    manifest["tokenizer_report"][split] = {**report, "unknown_rate": selection.unspelled / max(1, text_tokens)}
    text = {"text_sha256": selection.digest.hexdigest()}
    manifest["splits"][split] = {**asdict(count), **text, "shards": writer.shards}
    progress.note(split_summary(split, count))
