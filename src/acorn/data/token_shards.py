"""Token shards: a folder of raw token ids that runs read through a memory map. Reading, writing and checking.

    train-00000.bin  train-00001.bin ...  valid-00000.bin ...   tokenizer.json   manifest.json

A .bin file contains only token ids, little-endian, with 16 bits each if the vocabulary allows it, else 32. A split is
its shards joined end to end, with one separator before each document and one after the last. All shards except the last
are full, so a document may continue in the next shard. Counts and checksums are in the manifest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acorn.counting import counted
from acorn.errors import DamageError, InputError
from acorn.files import disk_errors, is_sealed, permission_denied, read_json
from acorn.folders import verify_folder
from acorn.progress import QUIET, Progress
from acorn.run_folder import MANIFEST, TOKENIZER
from acorn.tokenizer.tokenizer import Tokenizer

FORMAT = "acorn-token-shards"
VERSION = 1
PART_FORMAT = "acorn-text-part"
"""The format in the manifest of a part of a text, which `acorn data merge` reads."""

DTYPES: dict[str, np.dtype[np.unsignedinteger[Any]]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
CHECK_CHUNK_TOKENS = 1 << 22  # tokens read at once to count separators

Ids = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class SplitCount:
    """The counts of a split.

    Attributes:
        documents: number of documents.
        tokens: number of token ids, including separators.
        bytes: UTF-8 bytes of the documents' original text.
        words: words of the original text, plus one end-of-line per line.
        unknown_tokens: ids that are the tokenizer's unknown token, whether or not the text contains its name.
    """

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    words: int = 0
    unknown_tokens: int = 0

    def __add__(self, other: SplitCount) -> SplitCount:
        return SplitCount(**{name: n + getattr(other, name) for name, n in asdict(self).items()})


class TokenSequence:
    """The tokens of one split: all shards joined end to end, read from disk on access."""

    def __init__(self, files: list[Path], dtype: np.dtype[Any]) -> None:
        self._shards: list[Ids] = [np.memmap(file, dtype=dtype, mode="r").view(np.ndarray) for file in files]
        self._dtype = dtype
        ends = np.cumsum([len(shard) for shard in self._shards], dtype=np.int64)
        self.shard_starts: NDArray[np.int64] = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        self._length = int(ends[-1])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: slice) -> Ids:
        """The tokens of a slice with step 1, in their stored type."""
        start, stop, step = place.indices(self._length)
        if step != 1:
            raise ValueError("token sequences can only be sliced with step 1")
        parts = [np.zeros(0, self._dtype)]
        while start < stop:
            shard = int(self._shard_of(start))
            offset = start - int(self.shard_starts[shard])
            parts.append(self._shards[shard][offset : offset + stop - start])
            start += len(parts[-1])
        return parts[1] if len(parts) == 2 else np.concatenate(parts)

    def gather(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Windows of `length` tokens that begin at `starts`: (len(starts), length).

        Raises:
            IndexError: a window extends beyond either end.
        """
        if len(starts) and (starts.min() < 0 or starts.max() + length > self._length):
            raise IndexError(f"windows of {length} tokens must lie within the {self._length} tokens of the split")
        windows = np.empty((len(starts), length), np.int64)
        shards = self._shard_of(starts)
        offsets = starts - self.shard_starts[shards]
        # One copy per row: measured to be 2 to 20 times as fast as index arithmetic on whole batches.
        for row, (shard, offset) in enumerate(zip(shards.tolist(), offsets.tolist(), strict=True)):
            window = self._shards[shard][offset : offset + length]
            if len(window) < length:  # it continues in the next shard
                window = self[int(starts[row]) : int(starts[row]) + length]
            windows[row] = window
        return windows

    def _shard_of(self, places: Any) -> Any:
        return np.searchsorted(self.shard_starts, places, side="right") - 1


def has_manifest(folder: Path) -> bool:
    """Whether `folder` contains a manifest, as every folder of token shards does.

    Raises:
        InputError: permission to list the folder or to read the manifest is denied.
    """
    manifest = folder / MANIFEST
    try:
        is_there = stat.S_ISREG(os.stat(manifest).st_mode)
        is_denied = is_there and not os.access(manifest, os.R_OK)
    except PermissionError:
        is_there, is_denied = False, True
    except (OSError, ValueError):  # it does not exist, or the path contains NUL
        return False
    if is_denied:
        raise permission_denied(manifest if is_there else folder)
    return is_there


class TokenShards:
    """A folder of token shards, open for reading. `manifest` is the content of its manifest.json."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def open(
        cls,
        folder: Path,
        tokenizer_fingerprint: str | None = None,
        *,
        check: bool = False,
        progress: Progress = QUIET,
    ) -> TokenShards:
        """Opens `folder`.

        Args:
            folder: made by `acorn data prepare`, or by a run.
            tokenizer_fingerprint: of the tokenizer that must have made the shards; None: any.
            check: compare each file's SHA-256 and all counts, instead of names and sizes only.
            progress: is told about this check.

        Raises:
            InputError: it is not a folder of token shards, or they were made with another tokenizer.
            DamageError: a shard is missing, or was changed after it was written.
        """
        if not has_manifest(folder):
            raise InputError(
                f"There are no token shards here: {MANIFEST} is missing.", where=str(folder), fix=_FOLDER_HINT
            )
        manifest = read_json(folder / MANIFEST)
        if isinstance(manifest, dict) and manifest.get("kind") == "examples":
            raise InputError(
                "This folder holds examples to finetune on, not token shards.", where=str(folder), fix=_FOLDER_HINT
            )
        if isinstance(manifest, dict) and manifest.get("format") == PART_FORMAT:
            raise InputError(
                f"This folder is part {manifest.get('part')} of {manifest.get('parts')} of a text, not token shards.",
                where=str(folder),
                fix="merge all parts with `acorn data merge`, and name the folder that it makes",
            )
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise InputError(
                "This folder does not contain token shards.", where=str(folder / MANIFEST), fix=_FOLDER_HINT
            )
        if manifest.get("version") != VERSION:
            raise InputError(
                f"These shards have format version {manifest.get('version')}; this version of acorn reads {VERSION}.",
                where=str(folder / MANIFEST),
                fix="make them again, or use the version of acorn that made them",
            )
        if not is_sealed(manifest):
            raise DamageError(
                f"{MANIFEST} was changed after it was written (its SHA-256 differs).",
                where=str(folder / MANIFEST),
                fix="restore the folder from a copy, or make it again from the text (the result is identical)",
            )
        faults = verify(folder, progress) if check else _structure_faults(folder, manifest)
        if faults:
            raise DamageError(
                "These token shards are damaged:\n  " + "\n  ".join(faults),
                where=str(folder),
                fix="restore them from a copy, or make them again from the text (the result is identical)",
            )
        made_with = manifest["tokenizer"]["fingerprint"]
        if tokenizer_fingerprint not in (None, made_with):
            raise InputError(
                f"These shards were made with another tokenizer: its fingerprint is {made_with}, "
                f"that of the tokenizer to use is {tokenizer_fingerprint}.",
                where=str(folder / MANIFEST),
                fix=f"use the {TOKENIZER} inside that folder, or make the shards again",
            )
        return cls(folder, manifest)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.manifest["splits"])

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the shards were made with. It is in their folder."""
        return Tokenizer.from_file(self.folder / TOKENIZER, as_it_is=True)

    def count(self, split: str) -> SplitCount:
        entry = self.manifest["splits"][split]
        return SplitCount(**{name: entry[name] for name in asdict(SplitCount())})

    @property
    def clean(self) -> str:
        """The `data.clean` with which the text was read; `none` if the manifest does not contain it."""
        text = self.manifest.get("text")
        return str(text.get("clean", "none")) if isinstance(text, Mapping) else "none"

    def unknown_rate(self, split: str) -> float | None:
        """The share of a split's tokens for text that the vocabulary cannot represent; None if unknown."""
        found: object = self.manifest
        for name in ("tokenizer_report", split, "unknown_rate"):
            found = found.get(name) if isinstance(found, Mapping) else None
        return float(found) if isinstance(found, int | float) else None

    def tokens(self, split: str) -> TokenSequence:
        shards = self.manifest["splits"][split]["shards"]
        return TokenSequence([self.folder / shard["file"] for shard in shards], DTYPES[self.manifest["dtype"]])


class ShardWriter:
    """Writes the token stream of one split as shard files into a folder that is being made."""

    def __init__(self, folder: Path, split: str, dtype: str, shard_tokens: int) -> None:
        self.folder, self.split, self.shard_tokens = folder, split, shard_tokens
        self.dtype = DTYPES[dtype]
        self.shards: list[dict[str, Any]] = []

    def append(self, ids: Ids) -> None:
        """Appends tokens. A new file is started when one is full.

        Raises:
            InputError: an id is too large for the integer type of the shards.
        """
        ids = as_stored(ids, self.dtype, f"split {self.split}")
        while len(ids):
            if not self.shards or self.shards[-1]["tokens"] == self.shard_tokens:
                self.shards.append({"file": f"{self.split}-{len(self.shards):05d}.bin", "tokens": 0})
            shard = self.shards[-1]
            part = ids[: self.shard_tokens - shard["tokens"]]
            with disk_errors(self.folder / shard["file"], part.nbytes), open(self.folder / shard["file"], "ab") as file:
                file.write(part.tobytes())
            shard["tokens"] += len(part)
            ids = ids[len(part) :]


def as_stored(ids: Ids, dtype: np.dtype[Any], where: str) -> Ids:
    """`ids` in the integer type of the shards.

    Raises:
        InputError: an id is too large for it.
    """
    largest = np.iinfo(dtype).max
    if len(ids) and ids.max() > largest:
        raise InputError(
            f"Token id {ids.max()} is too large for {dtype.name} shards, whose largest id is {largest}.",
            where=where,
            fix="use another tokenizer; this one produces ids beyond its own vocabulary",
        )
    return ids.astype(dtype, copy=False)


def dtype_for(vocab_size: int) -> str:
    """The smallest integer type for all ids of a vocabulary."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def verify(folder: Path, progress: Progress = QUIET) -> list[str]:
    """Checks a folder of token shards: the SHA-256 of every file, no added files, and the counts in the manifest.

    Returns:
        one line per fault, with the file; an empty list if there are none.
    """
    faults = verify_folder(folder, progress)
    if faults:
        return faults
    manifest = read_json(folder / MANIFEST)
    faults = _structure_faults(folder, manifest)
    if faults:
        return faults
    shards = TokenShards(folder, manifest)
    vocab_size = manifest["tokenizer"]["vocab_size"]
    for split in shards.splits:
        separators, largest = _separators_and_largest(shards.tokens(split), manifest["tokenizer"]["separator_id"])
        if largest >= vocab_size:
            faults.append(
                f"{folder}: split {split} contains the id {largest}, but the tokenizer has {vocab_size} entries"
            )
        documents = shards.count(split).documents
        if separators != documents + 1:
            faults.append(f"{folder}: split {split} has {separators} separators; its documents need {documents + 1}")
    return faults


_FOLDER_HINT = "name a folder made by `acorn data prepare`"


def _structure_faults(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Faults that can be found without reading the shards: form of the manifest, names, sizes, sums."""
    try:
        width = DTYPES[manifest["dtype"]].itemsize
        _ = str(manifest["tokenizer"]["fingerprint"]), _count(manifest["tokenizer"]["separator_id"])
        _count(manifest["tokenizer"]["vocab_size"])
        counts = {
            name: (SplitCount(**{key: _count(entry[key]) for key in asdict(SplitCount())}), entry["shards"])
            for name, entry in manifest["splits"].items()
        }
        shards = {name: [(str(s["file"]), _count(s["tokens"])) for s in listed] for name, (_, listed) in counts.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return [f"{folder / MANIFEST}: does not have the form of a manifest of token shards"]
    faults = []
    for split, listed in shards.items():
        for name, tokens in listed:
            file = folder / name
            if Path(name).name != name:
                faults.append(f"{folder / MANIFEST}: names a shard outside its folder: {name!r}")
            elif not os.path.isfile(file):
                faults.append(f"{file}: is missing")
            elif tokens < 1 or file.stat().st_size != tokens * width:
                faults.append(f"{file}: has {counted(file.stat().st_size, 'byte')}, not {tokens * width:,}")
        if not listed or sum(tokens for _, tokens in listed) != counts[split][0].tokens:
            faults.append(f"{folder / MANIFEST}: the shards of split {split} do not add up to its tokens")
    return faults


def _count(value: Any) -> int:
    """Checks that a value in a manifest is a count. It is not converted, because the manifest itself is used later."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _separators_and_largest(tokens: TokenSequence, separator_id: int) -> tuple[int, int]:
    """The number of separators in a split, and its largest id."""
    parts = [tokens[place : place + CHECK_CHUNK_TOKENS] for place in range(0, len(tokens), CHECK_CHUNK_TOKENS)]
    separators = sum(int(np.count_nonzero(part == separator_id)) for part in parts)
    return separators, max((int(part.max()) for part in parts), default=0)
