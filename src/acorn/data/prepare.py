"""Encodes documents into token shards. The library encodes on all cores while this thread reads, cleans and writes."""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from acorn import files
from acorn.counting import counted
from acorn.data.token_shards import FORMAT, VERSION, ShardWriter, SplitCount, TokenShards, dtype_for
from acorn.errors import InputError, ResourceError
from acorn.folders import new_folder
from acorn.progress import QUIET, Progress
from acorn.run_folder import TOKENIZER
from acorn.text.digests import digest_of
from acorn.tokenizer.batching import batches
from acorn.tokenizer.measuring import mangling_warning, measure, unspelled_tokens
from acorn.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from acorn.text.corpus import Document
    from acorn.text.splits import TextSplits

Batch = TypeVar("Batch")
Result = TypeVar("Result")

BATCH_CHARACTERS = 1 << 22  # enough for all cores; encoding such a batch takes a few hundred megabytes
BATCHES_AHEAD = 2
MEASURED_DOCUMENTS = 2000  # documents of a held-out split that the tokenizer is measured on
ENCODER_THREADS = (
    2  # while one thread copies its ids out of the library, the library encodes for the other on all cores
)


@dataclass(frozen=True)
class Encoded:
    """An encoded batch.

    Attributes:
        ids: the ids of all documents, with a separator before each document.
        tokens: for each document, its ids, the separator included.
        unknown: for each document, the ids that are the unknown token.
        unspelled: for each document, the ids for text that the vocabulary cannot represent.
        documents: the documents.
    """

    ids: NDArray[np.uint32]
    tokens: list[int]
    unknown: list[int]
    unspelled: list[int]
    documents: list[Document]

    def count(self) -> SplitCount:
        return SplitCount(
            documents=len(self.documents),
            tokens=len(self.ids),
            bytes=sum(document.n_bytes for document in self.documents),
            words=sum(document.n_words for document in self.documents),
            unknown_tokens=sum(self.unknown),
        )


def prepare(
    splits: TextSplits,
    tokenizer: Tokenizer,
    out: Path,
    *,
    shard_tokens: int = 2**26,
    replace_existing: bool = False,
    progress: Progress = QUIET,
) -> TokenShards:
    """Writes the documents of `splits` as token shards into the new folder `out`.

    Equal text and an equal tokenizer give equal bytes. The folder appears when it is complete, or not at all.

    Args:
        shard_tokens: tokens per shard file.
        replace_existing: replace an existing `out` instead of refusing it.
        progress: gets the totals of each split; `splits` reports the reading itself.

    Raises:
        UsageError: `out` exists.
        InputError: a split has no document, or the text cannot be encoded.
        ResourceError: the disk is too small.
    """
    dtype = dtype_for(tokenizer.vocab_size)
    manifest = new_manifest(tokenizer)
    with new_folder(out, replace=replace_existing, extra=manifest) as folder:
        tokenizer.save(folder / TOKENIZER)
        for split in splits.names:
            if split != "train":
                manifest["tokenizer_report"][split] = _measure(splits, split, tokenizer, progress)
        for split in splits.names:
            writer = ShardWriter(folder, split, dtype, shard_tokens)
            digest = hashlib.sha256()
            count, unknown_rate = _write_split(splits, split, tokenizer, writer, digest)
            manifest["tokenizer_report"].setdefault(split, {})["unknown_rate"] = unknown_rate
            text = {"text_sha256": digest.hexdigest()}  # the same for the same text, whatever the tokenizer
            manifest["splits"][split] = {**asdict(count), **text, "shards": writer.shards}
            progress.note(split_summary(split, count))
        manifest["text"] = {"clean": splits.data.clean, "counts": splits.counts, "overlap": splits.overlap}
    return TokenShards.open(out)


def new_manifest(tokenizer: Tokenizer) -> dict[str, Any]:
    """The manifest of token shards that have no split yet."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "dtype": dtype_for(tokenizer.vocab_size),
        "tokenizer": {
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
            "separator_id": tokenizer.separator_id,
        },
        "tokenizer_report": {},
        "splits": {},
    }


def count_tokens(documents: Iterable[Document], tokenizer: Tokenizer) -> SplitCount:
    """Counts what token shards of these documents would contain, including the last separator. Nothing is written.

    Raises:
        InputError: the text cannot be encoded.
    """
    count = SplitCount(tokens=1)
    for batch in _encoded(documents, tokenizer):
        count = count + batch.count()
    return count


def split_summary(split: str, count: SplitCount) -> str:
    """The size of a split in a sentence."""
    return (
        f"{split}: {counted(count.documents, 'document')} of {count.bytes:,} bytes, {count.tokens:,} tokens, "
        f"{count.bytes / count.tokens:.2f} bytes per token."
    )


def check_room(folder: Path, split: str, needed: int) -> None:
    """Refuses to start a split whose shards need `needed` bytes if fewer are free.

    Raises:
        ResourceError: the disk is too small; both numbers are given.
    """
    free = files.free_bytes(folder)
    if needed > free:
        raise ResourceError(
            f"The disk is too small for the shards of split {split}: about {needed:,} bytes are needed, "
            f"{free:,} are free.",
            where=str(folder.parent),
            fix="free some space, or name a folder on another disk; nothing was written",
        )


def _measure(splits: TextSplits, split: str, tokenizer: Tokenizer, progress: Progress) -> dict[str, float]:
    """Measures the tokenizer on the first documents of a held-out split, and warns if it loses too much of them."""
    documents = splits.documents(split, f"measuring the tokenizer on {split}")
    report = measure(tokenizer, islice(documents, MEASURED_DOCUMENTS))
    if split == "valid" and (warning := mangling_warning(report)):
        progress.note(f"warning: {warning}")
    return {"round_trip_rate": report.round_trip_rate, "bytes_per_token": report.bytes_per_token}


def _write_split(
    splits: TextSplits, split: str, tokenizer: Tokenizer, writer: ShardWriter, digest: hashlib._Hash
) -> tuple[SplitCount, float]:
    """Encodes and writes a split, and updates `digest` with its documents.

    Returns:
        the counts, and the share of the tokens that represent text which the vocabulary cannot spell.
    """
    total_bytes = int(splits.counts.get(split, {}).get("bytes", 0))  # 0 if the split was not read before
    count, text_tokens, unspelled = SplitCount(), 0, 0
    for batch in _encoded(_digested(splits.documents(split, f"encoding {split}"), digest), tokenizer):
        if not count.documents:
            _check_room(writer, batch, total_bytes)
        writer.append(batch.ids)
        count = count + batch.count()
        text_tokens += len(batch.ids) - len(batch.documents) * len(tokenizer.document_start)
        unspelled += sum(batch.unspelled)
    if not count.documents:
        raise InputError(
            f"The {split} text is empty.",
            where="data.source",
            fix="use text that contains more than white space",
        )
    writer.append(np.array([tokenizer.separator_id], np.uint32))
    return replace(count, tokens=count.tokens + 1), unspelled / max(1, text_tokens)


def _digested(documents: Iterable[Document], digest: hashlib._Hash) -> Iterator[Document]:
    """Yields the documents, and updates `digest` with the digest of each one's cleaned text."""
    for document in documents:
        digest.update(text_digest(document))
        yield document


def text_digest(document: Document) -> bytes:
    """The digest of a document's cleaned text. The digest of a split is SHA-256 over these."""
    return digest_of(document.text.encode(errors="surrogatepass"))  # the tokenizer refuses what cannot be encoded


def _encoded(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """The encoded batches of `documents`, in order."""
    return in_threads(lambda batch: encode(batch, tokenizer), document_batches(documents))


def in_threads(work: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
    """Works on batches in other threads, BATCHES_AHEAD of the one that is being written. The order is kept."""
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(ENCODER_THREADS, thread_name_prefix="encode") as pool:
        try:
            for batch in batches:
                ahead.append(pool.submit(work, batch))
                if len(ahead) > BATCHES_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or an interrupt, do not encode what will not be written


def encode(batch: list[Document], tokenizer: Tokenizer) -> Encoded:
    """Encodes documents.

    Raises:
        InputError: the tokenizer cannot encode one, or encodes text as its document separator.
    """
    flat = array("I")  # four times as fast as converting lists with NumPy
    try:
        encoded = tokenizer.encode_documents([document.text for document in batch])
    except InputError as error:  # only here the location of the text is known
        raise InputError(error.what, where=f"{batch[0].source} to {batch[-1].source}", fix=error.fix) from error
    for ids in encoded:
        flat.extend(tokenizer.document_start)
        flat.extend(ids)
    tokens = np.frombuffer(flat, np.uint32)
    if np.count_nonzero(tokens == tokenizer.separator_id) != len(batch):
        raise InputError(
            f"The tokenizer encodes ordinary text as its document separator {tokenizer.separator!r}.",
            where=f"{batch[0].source} to {batch[-1].source}",
            fix="use another tokenizer, such as one made by `acorn tokenizer train`, which never does this",
        )
    start = tokenizer.document_start
    unknown_id = tokenizer.unknown_id
    return Encoded(
        tokens,
        tokens=[len(start) + len(ids) for ids in encoded],
        unknown=[0 if unknown_id is None else start.count(unknown_id) + ids.count(unknown_id) for ids in encoded],
        unspelled=[
            unspelled_tokens(tokenizer, document.text, ids) for document, ids in zip(batch, encoded, strict=True)
        ],
        documents=batch,
    )


def document_batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Groups `documents` into batches large enough to encode on all cores."""
    return batches(documents, lambda document: len(document.text), BATCH_CHARACTERS)


def _check_room(writer: ShardWriter, first: Encoded, total_bytes: int) -> None:
    """Checks before a split is written that it fits on the disk if the rest of its text is like the first batch."""
    count = first.count()
    if not count.bytes:
        return
    tokens = count.tokens * max(1.0, total_bytes / count.bytes)
    check_room(writer.folder, writer.split, int(tokens * writer.dtype.itemsize))
