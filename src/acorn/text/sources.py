"""What a SRC names: files, globs, folders, `hf:...` or `bundled:wikitext-2` -> the parts of each split, in order."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from acorn.config import DataConfig
from acorn.errors import InputError, UsageError
from acorn.progress import Progress
from acorn.text import hub
from acorn.text.hub import HubReader, HubSplit
from acorn.text.reading import Reading
from acorn.text.rows import RowReader, file_reader
from acorn.text.text_files import ENDINGS, TextFile, ending_of

BUNDLED = "bundled:wikitext-2"
_BUNDLED_FOLDER = Path(__file__).with_name("wikitext2")
_OFFLINE_HINT = f"check the path; {BUNDLED} comes with acorn and needs no file and no network"

Part = TextFile | HubSplit
Splits = dict[str, list[Part]]  # "train", and where the source has its own "valid" and "test"


def resolve(sources: Sequence[str], data: DataConfig, key: str, progress: Progress) -> list[Splits]:
    """The parts that each of `sources` stands for, by split. A file named twice is only in the first.

    Args:
        key: the config key or option they come from, for messages.

    Raises:
        UsageError: a source cannot be understood, or does not fit `data.document`.
        InputError: a source matches nothing that can be read.
    """
    if not sources:
        raise UsageError("No text is named.", where=key, mend=f"give files, globs, folders, hf:OWNER/NAME or {BUNDLED}")
    seen: set[str] = set()
    return [_without(seen, _resolve_one(source, data, progress)) for source in sources]


def merged(found: Sequence[Splits]) -> Splits:
    """The parts of several sources together."""
    names = {name for splits in found for name in splits}
    return {name: [part for splits in found for part in splits.get(name, [])] for name in names}


def open_reader(part: Part, data: DataConfig, reading: Reading, *, cut_small: bool = False) -> RowReader:
    """A fresh pass over the rows of `part`. For `cut_small` see `file_reader`."""
    if isinstance(part, HubSplit):
        return HubReader(part, data, reading)
    return file_reader(part, data, reading, cut_small=cut_small)


def _resolve_one(source: str, data: DataConfig, progress: Progress) -> Splits:
    if source == BUNDLED:
        return {
            split: [TextFile.at(_BUNDLED_FOLDER / f"{split}.txt.xz", f"{BUNDLED} ({split})")]
            for split in ("train", "valid", "test")
        }
    if source.startswith("bundled:"):
        raise UsageError(f"There is no bundled text {source!r}.", where=source, mend=f"the only one is {BUNDLED}")
    if source.startswith(hub.PREFIX):
        _check_table(source, data)
        return {split: [part] for split, part in hub.hub_splits(source, progress).items()}
    files = _files(source, progress)
    for file in files:
        if file.form == "txt" and data.document == "row":
            raise UsageError(
                "A .txt has no rows.",
                where=f'{file.name} with data.document = "row"',
                mend='use "auto", "line" or "file"',
            )
        if file.form != "txt":
            _check_table(file.name, data)
    return {"train": list(files)}


def _without(seen: set[str], splits: Splits) -> Splits:
    """`splits` without the parts in `seen`, which then holds them."""

    def is_new(part: Part) -> bool:
        identity = os.path.realpath(part.path) if isinstance(part, TextFile) else part.name
        new = identity not in seen
        seen.add(identity)
        return new

    return {name: [part for part in parts if is_new(part)] for name, parts in splits.items()}


def _check_table(name: str, data: DataConfig) -> None:
    if data.document in ("line", "file"):
        raise UsageError(
            "The documents of a table are its rows.",
            where=f'{name} with data.document = "{data.document}"',
            mend='use "auto" or "row"',
        )


def _files(source: str, progress: Progress) -> list[TextFile]:
    # Unlike Path's own, these take any string: names too long, with NUL, or of a user who is not there.
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        found = sorted(_walk(path, None))
    elif os.path.lexists(path):
        return [TextFile.at(path, source)]
    elif _has_wildcard(str(path)):
        found = sorted(_glob(path))
    else:
        raise InputError(f"There is no file or folder {source!r}.", where=str(path.absolute()), mend=_OFFLINE_HINT)
    texts = [entry for entry in found if ending_of(entry.name)]
    if not texts:
        others = f", only {len(found):,} with other endings" if found else ""
        raise InputError(
            f"{source!r} matches no text file{others}.",
            where=str(path.absolute()),
            mend=f"acorn reads {', '.join(ENDINGS)}; {_OFFLINE_HINT}",
        )
    if len(texts) < len(found):
        ignored = len(found) - len(texts)
        progress.note(f"{source}: {ignored:,} of {len(found):,} files are not read; their endings are not of text.")
    return [TextFile.at(entry) for entry in texts]


def _walk(folder: Path, depth: int | None) -> Iterator[Path]:
    """Everything below `folder`, at most `depth` folders deep, but folders and what is hidden (`.name`).

    Linked folders are entered, each folder once, so that a loop of links ends.
    """
    entered: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(here)
        inside = len(Path(here).relative_to(folder).parts)
        if (status.st_dev, status.st_ino) in entered or (depth is not None and inside > depth):
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in files if not name.startswith("."))


def _refuse(error: OSError) -> None:
    what = f"This folder cannot be read: {error.strerror}."
    raise InputError(what, where=str(error.filename), mend="check that it can be opened")


def _glob(pattern: Path) -> Iterator[Path]:
    """Files that match `pattern`; `**` stands for any number of folders, `*` and `?` stay within a name."""
    parts = pattern.parts
    first = next(index for index, part in enumerate(parts) if _has_wildcard(part))
    folder, wanted = Path(*parts[:first]), parts[first:]
    if os.path.isdir(folder):
        depth = None if "**" in wanted else len(wanted) - 1
        yield from (path for path in _walk(folder, depth) if _matches(path.relative_to(folder).parts, wanted))


def _matches(names: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not names
    if wanted[0] == "**":
        return any(_matches(names[skipped:], wanted[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], wanted[0]) and _matches(names[1:], wanted[1:])


def _has_wildcard(text: str) -> bool:
    return any(character in text for character in "*?[")
