"""Resolves sources (files, globs, folders, `hf:...` or `bundled:wikitext-2`) to the parts of each split, in order."""

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
from acorn.text.rows import WHOLE, RowReader, Span, file_reader
from acorn.text.text_files import MARKUP_ENDINGS, TEXT, Endings, TextFile, ending_of
from acorn.text.transcoding import UTF8
from acorn.text.walk import MODEL, OUT, RUN, SHARDS, Walk, has_wildcard

BUNDLED = "bundled:wikitext-2"
_BUNDLED_FOLDER = Path(__file__).with_name("wikitext2")
_OFFLINE_HINT = f"; {BUNDLED} is part of acorn and needs neither a file nor a network"
_OWN_HINTS = {
    OUT: "keep the text in a separate folder, or name its files",
    RUN: "name a folder of text; you can also name a single file of a run",
    SHARDS: "name it in data.shards instead of data.source",
}

Part = TextFile | HubSplit
Splits = dict[str, list[Part]]  # "train", and "valid" and "test" if the source has these splits


def resolve(
    sources: Sequence[str],
    data: DataConfig,
    key: str,
    progress: Progress,
    out: Path | None = None,
    endings: Endings = TEXT,
) -> list[Splits]:
    """The parts of each of `sources`, by split. A file that is named twice belongs to the first source only.

    Args:
        key: the config key or option that names the sources, for messages.
        out: the run folder that the text is for; it is skipped if it is inside a source folder.
        endings: the endings of the files to read.

    Raises:
        UsageError: a source is empty, has an unknown form, or contradicts `data.document`.
        InputError: a source matches nothing that acorn can read.
    """
    if not sources:
        bundled = f" or {BUNDLED}" if endings is TEXT else ""
        raise UsageError(
            f"No {endings.noun} is named.",
            where=key,
            fix=f"name files, globs, folders{',' if bundled else ' or'} hf:OWNER/NAME{bundled}",
        )
    if "" in sources:
        raise UsageError(
            f"An empty string names no {endings.noun}.",
            where=key,
            fix='remove it, or write "." for the current folder',
        )
    seen: set[str] = set()
    return [_without(seen, _resolve_one(source, data, progress, out, endings)) for source in sources]


def merged(found: Sequence[Splits]) -> Splits:
    """Combines the parts of several sources."""
    names = {name for splits in found for name in splits}
    return {name: [part for splits in found for part in splits.get(name, [])] for name in names}


def open_reader(
    part: Part, data: DataConfig, reading: Reading, *, cut_small: bool = False, span: Span = WHOLE
) -> RowReader:
    """A new pass over the rows of `part`. See `file_reader` for `cut_small` and `span`."""
    if isinstance(part, HubSplit):
        return HubReader(part, data, reading)
    return file_reader(part, data, reading, cut_small=cut_small, span=span)


def held_out_parts(sources: Sequence[Splits], split: str) -> list[Part]:
    """The parts of sources named as held-out text: of each source its own split of that name, else all of it."""
    return [part for splits in sources for part in splits.get(split, splits["train"])]


def _resolve_one(source: str, data: DataConfig, progress: Progress, out: Path | None, endings: Endings) -> Splits:
    if source.startswith(BUNDLED_PREFIX) and endings is not TEXT:
        raise UsageError(f"{source} is text, not a {endings.noun}.", where=source, fix=f"name files: {endings.listed}")
    if source == BUNDLED:
        _note_utf8(source, data, progress)
        return {
            split: [TextFile.at(_BUNDLED_FOLDER / f"{split}.txt.xz", f"{BUNDLED} ({split})")]
            for split in ("train", "valid", "test")
        }
    if source.startswith(BUNDLED_PREFIX):
        raise UsageError(f"acorn has no bundled text {source!r}.", where=source, fix=f"use {BUNDLED}, the only one")
    if source.startswith(HUB_PREFIX):
        if endings is TEXT:
            _check_table(source, data)
        _note_utf8(source, data, progress)
        return {split: [part] for split, part in hub.hub_splits(source, progress).items()}
    files = _files(source, data, progress, out, endings)
    for file in files if endings is TEXT else ():
        if file.form == "txt" and data.document == "row":
            raise UsageError(
                f"A {ending_of(file.path.name)} file has no rows.",
                where=f'{file.name} with data.document = "row"',
                fix='use "auto", "line", "block" or "file"',
            )
        if file.form != "txt":
            _check_table(file.name, data)
    if any(file.encoding == UTF8 for file in files):
        _note_utf8(source, data, progress)
    return {"train": list(files)}


def _without(seen: set[str], splits: Splits) -> Splits:
    """`splits` without the parts in `seen`. The other parts are added to `seen`."""

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
    """Notes that `data.encoding` does not apply to this source."""
    if data.encoding != UTF8:
        progress.note(f"{source}: data.encoding = {data.encoding} applies to text files only; this text is UTF-8.")


def _files(source: str, data: DataConfig, progress: Progress, out: Path | None, endings: Endings) -> list[TextFile]:
    # Unlike the methods of Path, these accept any string: names that are too long, contain NUL or an unknown user.
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
    skipped = walk.summary()
    texts = [entry for entry in found if ending_of(entry.name, endings)]
    if not texts:
        others = f", only {len(found):,} with other endings ({_endings(found)})" if found else ""
        raise InputError(
            f"{source!r} matches no {endings.noun} file{others}{f'; skipped: {skipped}' if skipped else ''}.",
            where=str(path.absolute()),
            fix=f"acorn reads {endings.listed}; {check_path}",
        )
    if skipped:
        progress.note(f"{source}: skipped, because it is not your {endings.noun}: {skipped}.")
    if len(texts) < len(found):
        unread = [entry for entry in found if not ending_of(entry.name, endings)]
        progress.note(
            f"{source}: {len(unread):,} of {len(found):,} files are not read because of their endings "
            f"({_endings(unread)}): {names_of(map(str, unread))}."
        )
    files = [TextFile.at(entry, encoding=data.encoding, endings=endings) for entry in texts]
    _note_markup(source, files, progress)
    return files


def _refuse_own(folder: Path, source: str, walk: Walk) -> None:
    """Refuses a source folder that acorn wrote, or that contains a model.

    Raises:
        InputError: it is such a folder.
    """
    try:
        entries = [*os.scandir(folder)]
    except OSError:  # the walk will report the error
        return
    folders, files = ([entry.name for entry in entries if entry.is_dir() == wanted] for wanted in (True, False))
    kind = walk.kind_of(folder, folders, files)
    if kind in (OUT, RUN, SHARDS, MODEL):
        raise InputError(
            f"{source!r} is a {kind}, not text.",
            where=str(folder.absolute()),
            fix=_OWN_HINTS.get(kind, "name a folder of text; you can also name a single file of it"),
        )


def _note_markup(source: str, files: Sequence[TextFile], progress: Progress) -> None:
    """Notes which files are read as plain text although their endings mean a format with markup or separators."""
    found = Counter(ending_of(file.path.name) for file in files if file.form == "txt")
    named = ", ".join(
        f"{n:,} {ending}" for ending, n in sorted(found.items()) if str(ending).startswith(MARKUP_ENDINGS)
    )
    if named:
        progress.note(f"{source}: read as plain text, including markup and separators: {named}.")


def _endings(paths: Sequence[Path]) -> str:
    """The endings of files with their counts, the most frequent first."""
    counted = Counter(path.suffix.lower() or "no ending" for path in paths)
    return names_of(f"{ending} {n:,}" for ending, n in counted.most_common())
