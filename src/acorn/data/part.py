"""Encodes one part of a text on one of several machines. `acorn data merge` makes token shards from all parts.

A part is a run of pieces (`text/pieces.py`). Nothing is dropped here that depends on other parts: each row is kept with
its digest, and the merge finds the repeats and the split. A part that was killed goes on after its last whole piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acorn.data.part_rows import COUNTED, ROW, PieceFiles, Rows, digest_halves, digest_list
from acorn.data.prepare import BATCH_CHARACTERS, MEASURED_DOCUMENTS, Encoded, encode, in_threads, text_digest
from acorn.data.token_shards import DTYPES, PART_FORMAT, as_stored, dtype_for
from acorn.errors import DamageError, UsageError
from acorn.files import disk_errors, read_sealed_json, write_sealed_json
from acorn.folder_lock import FolderLock
from acorn.folders import resumable_folder
from acorn.progress import QUIET, Progress
from acorn.run_folder import MANIFEST, TOKENIZER
from acorn.text.corpus import Corpus, Document, document_of
from acorn.text.digests import digest_limit, digest_of
from acorn.text.pieces import Pieces
from acorn.text.reading import Reading, SplitCounts
from acorn.text.rows import TxtReader
from acorn.text.splits import TextSplits
from acorn.tokenizer.batching import batches
from acorn.tokenizer.measuring import RoundTrip, mangling_warning, measure
from acorn.tokenizer.tokenizer import Tokenizer

PART_VERSION = 1
PLAN, LOCK = "part.json", ".lock"
SETTINGS = (
    "clean",
    "document",
    "valid_fraction",
    "text_field",
    "dedup",
    "encoding",
    "errors",
    "overlap",
    "shard_tokens",
)
"""Settings of `data` that all parts must share."""

TO_MEASURE = 2 * MEASURED_DOCUMENTS
"""Distinct held-out documents of a part on which the tokenizer is measured. The merge needs the first
MEASURED_DOCUMENTS of the whole text. Where a part is still needed, the parts before it have fewer, so at most that many
of its documents can repeat theirs."""

_ROW_CHARACTERS = 64  # what a row costs in a batch in addition to its text


def prepare_part(
    splits: TextSplits,
    tokenizer: Tokenizer,
    out: Path,
    part: int,
    parts: int,
    *,
    piece_bytes: int | None = None,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Encodes part `part` (from 1) of `parts` into the folder `out`. Goes on if an earlier process began it.

    Args:
        piece_bytes: size of a piece; None: by the size of the text. It must be the same for all parts.

    Returns:
        the manifest of the part.

    Raises:
        UsageError: `out` exists and is not this part, or holds a beginning of another part.
        InputError: the text cannot be read or encoded.
        ResourceError: the disk is too small.
    """
    corpora = {split: Pieces.of(corpus, piece_bytes) for split, corpus in splits.corpora.items()}
    plan = _plan(splits, tokenizer, corpora, part, parts)
    if out.exists():
        _check_same(out / MANIFEST, plan)
        progress.note(f"Part {part} of {parts} is already complete: {out}")
        return plan
    with resumable_folder(out, plan) as folder, FolderLock(folder / LOCK):
        if (folder / PLAN).exists():
            _check_same(folder / PLAN, plan)
        else:
            tokenizer.save(folder / TOKENIZER)
            write_sealed_json(folder / PLAN, plan)
        for split, pieces in corpora.items():
            _PartWriter(splits, split, pieces, tokenizer, folder, progress).write(pieces.of_part(part, parts))
    return plan


def _plan(
    splits: TextSplits, tokenizer: Tokenizer, corpora: dict[str, Pieces], part: int, parts: int
) -> dict[str, Any]:
    """What the part is made from: everything that must be the same in all parts, and its number."""
    data = splits.data.model_dump()
    return {
        "format": PART_FORMAT,
        "version": PART_VERSION,
        "part": part,
        "parts": parts,
        "tokenizer": tokenizer.fingerprint,
        "settings": {name: data[name] for name in SETTINGS},
        "text": {
            split: {
                "piece_bytes": pieces.piece_bytes,
                "pieces": len(pieces),
                "files": [asdict(identity) for identity in pieces.identities()],
            }
            for split, pieces in corpora.items()
        },
    }


def _check_same(file: Path, plan: dict[str, Any]) -> None:
    """Refuses a folder with another part than `plan`.

    Raises:
        UsageError: it is another part, or is no part at all.
    """
    where = str(file.parent)
    try:
        found = read_sealed_json(file)
    except DamageError:
        found = {}
    if found.get("format") != PART_FORMAT:
        raise UsageError(f"{where} already exists.", where=where, fix="name another folder, or remove this one")
    if changed := [name for name, value in plan.items() if found.get(name) != value]:
        raise UsageError(
            f"This folder holds part {found.get('part')} of {found.get('parts')}, made with another "
            f"{' and another '.join(changed)} than this command names.",
            where=where,
            fix="name another folder, or remove this one to make the part again",
        )


@dataclass
class _Row:
    """A row of the text, and the document if it became one."""

    digest: bytes
    n_bytes: int
    counts: SplitCounts
    document: Document | None


class _PartWriter:
    """Writes the pieces of one corpus."""

    def __init__(
        self,
        splits: TextSplits,
        split: str,
        pieces: Pieces,
        tokenizer: Tokenizer,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.data, self.split, self.pieces, self.tokenizer = splits.data, split, pieces, tokenizer
        self.folder, self.progress = folder, progress
        self.dtype = DTYPES[dtype_for(tokenizer.vocab_size)]
        # Documents below the limit are held out: of training text a share, of other text all.
        self._is_training = split == "train"
        self._measures = splits.automatic or not self._is_training
        self._limit = int.from_bytes(digest_limit(self.data.valid_fraction), "big")
        self._round_trip = RoundTrip(tokenizer)
        self._measured: set[bytes] = set()
        self._row_starts: dict[str, int] = {}

    def write(self, numbers: range) -> None:
        task = f"encoding {self.split}"
        for done, number in enumerate(numbers):
            self.progress.at(task, done * self.pieces.piece_bytes, len(numbers) * self.pieces.piece_bytes)
            files = PieceFiles(self.folder, self.split, number)
            if files.is_whole():
                for rows in files.row_chunks():
                    self._measured.update(digest_list(rows["digest"][rows["measured"] > 0]))
            else:
                self._write_piece(files, self.pieces.open(number, self._row_starts))
        self.progress.end(task)

    def _write_piece(self, files: PieceFiles, corpus: Corpus) -> None:
        reading = Reading(self.data.errors)
        rows = batches(
            self._rows(corpus, reading),
            lambda row: _ROW_CHARACTERS + (len(row.document.text) if row.document else 0),
            BATCH_CHARACTERS,
        )
        with disk_errors(files.folder), open(files.rows, "wb") as row_file, open(files.tokens, "wb") as token_file:
            for batch, encoded in in_threads(self._encode, rows):
                row_file.write(self._records(batch, encoded).tobytes())
                token_file.write(as_stored(encoded.ids, self.dtype, f"split {self.split}").tobytes())
        files.finish(reading.counts)

    def _rows(self, corpus: Corpus, reading: Reading) -> Iterator[_Row]:
        """The rows of a piece. `reading` counts those that the reader itself drops."""
        own = Reading(self.data.errors)
        reader = None
        for raw, position, reader in corpus.rows(reading):
            own.counts = SplitCounts()
            document = document_of(raw, position, reader, self.data, own)
            yield _Row(digest_of(raw), len(raw), own.counts, document)
        if isinstance(reader, TxtReader):
            self._row_starts = {str(reader.file.path): reader.next_row}

    def _encode(self, batch: list[_Row]) -> tuple[list[_Row], Encoded]:
        documents = [row.document for row in batch if row.document]
        if not documents:
            return batch, Encoded(np.zeros(0, np.uint32), [], [], [], [])
        return batch, encode(documents, self.tokenizer)

    def _records(self, batch: list[_Row], encoded: Encoded) -> Rows:
        rows = np.zeros(len(batch), ROW)
        rows["digest"] = np.frombuffer(b"".join(row.digest for row in batch), ROW["digest"])
        rows["bytes"] = [row.n_bytes for row in batch]
        for name in COUNTED:
            rows[name] = [getattr(row.counts, name) for row in batch]
        at = np.flatnonzero(rows["documents"])
        documents = encoded.documents
        digests = b"".join(text_digest(document) for document in documents)
        rows["text_digest"][at] = np.frombuffer(digests, ROW["text_digest"])
        rows["words"][at] = [document.n_words for document in documents]
        rows["tokens"][at] = encoded.tokens
        rows["unknown"][at] = encoded.unknown
        rows["unspelled"][at] = encoded.unspelled
        if self._measures and len(self._measured) < TO_MEASURE:
            self._measure(rows, at, documents)
        return rows

    def _measure(self, rows: Rows, at: Any, documents: list[Document]) -> None:
        """Counts the words that the tokenizer leaves unchanged, in the first held-out documents of the part."""
        held_out = np.ones(len(at), bool)
        if self._is_training:
            held_out = digest_halves(rows["digest"][at])[0] < np.uint64(self._limit)
        chosen: list[int] = []
        digests = digest_list(rows["digest"][at])
        first = not self._measured
        for number in np.flatnonzero(held_out).tolist():
            if len(self._measured) < TO_MEASURE and digests[number] not in self._measured:
                self._measured.add(digests[number])
                chosen.append(number)
        texts = [documents[number].text for number in chosen]
        if first and texts and (warning := mangling_warning(measure(self.tokenizer, texts))):
            self.progress.note(f"warning: {warning}")
        counts = self._round_trip.words_and_kept(texts, self.tokenizer.encode_documents(texts))
        for number, (words, kept) in zip(chosen, counts, strict=True):
            row = at[number]
            rows["measured"][row], rows["text_words"][row], rows["kept_words"][row] = 1, words, kept
