"""What a SRC names: files, globs, folders, `hf:...` or `bundled:wikitext-2` -> the parts of each split, in order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from acorn.config import DataConfig
from acorn.errors import InputError, UsageError
from acorn.origin import BUNDLED_PREFIX, HUB_PREFIX
from acorn.progress import Progress
from acorn.text import hub
from acorn.text.hub import HubReader, HubSplit
from acorn.text.reading import Reading, names_of
from acorn.text.rows import RowReader, file_reader
from acorn.text.text_files import MARKUP, TEXT, Endings, TextFile, ending_of
from acorn.text.transcoding import UTF8
from acorn.text.walk import MODEL, OUT, RUN, SHARDS, Walk, has_wildcard

BUNDLED = "bundled:wikitext-2"
_BUNDLED_FOLDER = Path(__file__).with_name("wikitext2")
_OFFLINE_HINT = f"; {BUNDLED} comes with acorn and needs no file and no network"
_OWN_HINTS = {
    OUT: "keep the text in a folder of its own, or name its files",
    RUN: "name a folder of text; a single file of a run can be named too",
    SHARDS: "name it in data.shards, in place of data.source",
}

Part = TextFile | HubSplit
Splits = dict[str, list[Part]]  # "train", and where the source has its own "valid" and "test"


def resolve(
    sources: Sequence[str],
    data: DataConfig,
    key: str,
    progress: Progress,
    out: Path | None = None,
    endings: Endings = TEXT,
) -> list[Splits]:
    """The parts that each of `sources` stands for, by split. A file named twice is only in the first.

    Args:
        key: the config key or option they come from, for messages.
        out: the run folder that the text is for; a folder that holds it is read without it.
        endings: of the files that are read.

    Raises:
        UsageError: a source is empty, cannot be understood, or does not fit `data.document`.
        InputError: a source matches nothing that can be read.
    """
    if not sources:
        bundled = f" or {BUNDLED}" if endings is TEXT else ""
        raise UsageError(
            f"No {endings.noun} is named.",
            where=key,
            fix=f"give files, globs, folders{',' if bundled else ' or'} hf:OWNER/NAME{bundled}",
        )
    if "" in sources:
        raise UsageError(
            f"An empty string names no {endings.noun}.",
            where=key,
            fix='leave it out, or write "." for the current folder',
        )
    seen: set[str] = set()
    return [_without(seen, _resolve_one(source, data, progress, out, endings)) for source in sources]


def merged(found: Sequence[Splits]) -> Splits:
    """The parts of several sources together."""
    names = {name for splits in found for name in splits}
    return {name: [part for splits in found for part in splits.get(name, [])] for name in names}


def open_reader(part: Part, data: DataConfig, reading: Reading, *, cut_small: bool = False) -> RowReader:
    """A fresh pass over the rows of `part`. For `cut_small` see `file_reader`."""
    if isinstance(part, HubSplit):
        return HubReader(part, data, reading)
    return file_reader(part, data, reading, cut_small=cut_small)


def held_out_parts(sources: Sequence[Splits], split: str) -> list[Part]:
    """Of each source that is named as held-out text its own such split, else all of it."""
    return [part for splits in sources for part in splits.get(split, splits["train"])]


def _resolve_one(source: str, data: DataConfig, progress: Progress, out: Path | None, endings: Endings) -> Splits:
    if source.startswith(BUNDLED_PREFIX) and endings is not TEXT:
        raise UsageError(f"{source} is text, not a {endings.noun}.", where=source, fix=f"name files: {endings.told}")
    if source == BUNDLED:
        _note_utf8(source, data, progress)
        return {
            split: [TextFile.at(_BUNDLED_FOLDER / f"{split}.txt.xz", f"{BUNDLED} ({split})")]
            for split in ("train", "valid", "test")
        }
    if source.startswith(BUNDLED_PREFIX):
        raise UsageError(f"There is no bundled text {source!r}.", where=source, fix=f"the only one is {BUNDLED}")
    if source.startswith(HUB_PREFIX):
        if endings is TEXT:
            _check_table(source, data)
        _note_utf8(source, data, progress)
        return {split: [part] for split, part in hub.hub_splits(source, progress).items()}
    files = _files(source, data, progress, out, endings)
    for file in files if endings is TEXT else ():
        if file.form == "txt" and data.document == "row":
            raise UsageError(
                f"A {ending_of(file.path.name)} has no rows.",
                where=f'{file.name} with data.document = "row"',
                fix='use "auto", "line", "block" or "file"',
            )
        if file.form != "txt":
            _check_table(file.name, data)
    if any(file.encoding == UTF8 for file in files):
        _note_utf8(source, data, progress)
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
    if data.document in ("line", "block", "file"):
        raise UsageError(
            "The documents of a table are its rows.",
            where=f'{name} with data.document = "{data.document}"',
            fix='use "auto" or "row"',
        )


def _note_utf8(source: str, data: DataConfig, progress: Progress) -> None:
    """Says where an encoding that was asked for does not apply."""
    if data.encoding != UTF8:
        progress.note(f"{source}: data.encoding = {data.encoding} is for text files alone; this text is UTF-8.")


def _files(source: str, data: DataConfig, progress: Progress, out: Path | None, endings: Endings) -> list[TextFile]:
    # Unlike Path's own, these take any string: names too long, with NUL, or of a user who is not there.
    path, walk = Path(os.path.expanduser(source)), Walk(out)
    check_path = f"check the path{_OFFLINE_HINT if endings is TEXT else ''}"
    if os.path.isdir(path):
        _refuse_own(path, source, walk)
        found = sorted(walk.files(path))
    elif os.path.lexists(path):
        file = TextFile.at(path, source, data.encoding, endings)
        _note_markup(source, [file], progress)
        return [file]
    elif has_wildcard(str(path)):
        found = sorted(walk.matches(path))
    else:
        raise InputError(f"There is no file or folder {source!r}.", where=str(path.absolute()), fix=check_path)
    skipped = walk.told()
    texts = [entry for entry in found if ending_of(entry.name, endings)]
    if not texts:
        others = f", only {len(found):,} with other endings ({_endings(found)})" if found else ""
        raise InputError(
            f"{source!r} matches no {endings.noun} file{others}{f'; skipped: {skipped}' if skipped else ''}.",
            where=str(path.absolute()),
            fix=f"acorn reads {endings.told}; {check_path}",
        )
    if skipped:
        progress.note(f"{source}: skipped (no {endings.noun} of yours): {skipped}.")
    if len(texts) < len(found):
        unread = [entry for entry in found if not ending_of(entry.name, endings)]
        progress.note(
            f"{source}: {len(unread):,} of {len(found):,} files are not read, for their endings "
            f"({_endings(unread)}): {names_of(map(str, unread))}."
        )
    files = [TextFile.at(entry, encoding=data.encoding, endings=endings) for entry in texts]
    _note_markup(source, files, progress)
    return files


def _refuse_own(folder: Path, source: str, walk: Walk) -> None:
    """Refuses a folder, named as a source, that acorn wrote itself, or that is a model's.

    Raises:
        InputError: it is one.
    """
    try:
        entries = [*os.scandir(folder)]
    except OSError:  # the walk says what is wrong
        return
    folders, files = ([entry.name for entry in entries if entry.is_dir() == wanted] for wanted in (True, False))
    kind = walk.kind_of(folder, folders, files)
    if kind in (OUT, RUN, SHARDS, MODEL):
        raise InputError(
            f"{source!r} is a {kind}, not text.",
            where=str(folder.absolute()),
            fix=_OWN_HINTS.get(kind, "name a folder of text; a single file of it can be named too"),
        )


def _note_markup(source: str, files: Sequence[TextFile], progress: Progress) -> None:
    """Says which files are read as they are, although their endings promise more than plain text."""
    found = Counter(ending_of(file.path.name) for file in files if file.form == "txt")
    named = ", ".join(f"{n:,} {ending}" for ending, n in sorted(found.items()) if str(ending).startswith(MARKUP))
    if named:
        progress.note(f"{source}: read as plain text, with all markup and separators: {named}.")


def _endings(paths: Sequence[Path]) -> str:
    """The endings of files, the most frequent first, with their numbers."""
    counted = Counter(path.suffix.lower() or "no ending" for path in paths)
    return names_of(f"{ending} {n:,}" for ending, n in counted.most_common())
