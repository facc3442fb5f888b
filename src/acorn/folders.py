"""Durable folders: a folder appears under its name complete, or not at all.

A folder is filled as `X.new`, gets a manifest with the SHA-256 of every file, and is renamed to `X`. If it replaces an
older `X`, that is renamed to `X.old` in between. A writer first finishes what an interrupted writer left (`settle`). A
reader changes nothing and asks `readable` which of the names holds the folder now. Folders are flat: files only.

Each step is flushed before the next one relies on it, so nothing depends on the order in which a disk writes unflushed
data. Pillai et al. 2014, "All File Systems Are Not Created Equal", show what goes wrong otherwise.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from acorn.counting import counted
from acorn.errors import DamageError, UsageError
from acorn.files import (
    DISK_FAULTS,
    disk_error,
    disk_errors,
    is_sealed,
    make_folders,
    permission_denied,
    read_json,
    sha256_of,
    sync_file,
    sync_folder,
    write_sealed_json,
)
from acorn.progress import QUIET, Progress
from acorn.run_folder import MANIFEST

MARKER = ".being-written"
"""Present in `X.new` until its manifest is written. A folder with neither, unless it is empty, was not made by acorn
and is never removed."""


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False, extra: dict[str, Any] | None = None) -> Iterator[Path]:
    """A folder to fill; it appears as `path`, with its manifest, when the block ends without an error.

    Args:
        path: the name it gets at the end.
        replace: replace an existing folder of that name; otherwise refuse it.
        extra: more content for the manifest; read when the block ends, so the block may fill it.

    Raises:
        UsageError: `path` exists and `replace` is false; a folder beside it is in the way, which may be the user's own.
        ResourceError: the disk is full or cannot be written.
    """
    path = path.absolute()
    if path.exists() and not replace:
        raise UsageError(f"{path} already exists.", where=str(path), fix="name another folder, or remove this one")
    if not replace:  # nothing of this name was being replaced, so X.old is not a step of that
        check_no_old(path)
    settle(path)
    fresh = _beside(path, ".new")
    with disk_errors(path):
        make_folders(fresh.parent)
    try:
        with disk_errors(path):
            fresh.mkdir()
            (fresh / MARKER).touch()
            sync_folder(fresh)
        yield fresh
        with disk_errors(path):
            _write_manifest(fresh, extra or {})
            (fresh / MARKER).unlink()
            _move_into_place(fresh, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            remove_folder(fresh)
        if isinstance(error, OSError) and _is_about_writing(error, fresh):
            raise disk_error(error, path, 0) from error
        raise


@contextlib.contextmanager
def resumable_folder(path: Path, extra: dict[str, Any]) -> Iterator[Path]:
    """A folder to fill, as `new_folder`; but after an error or a kill `X.new` stays, and the next block gets it again.

    The block itself checks what it finds there.

    Args:
        path: the name it gets at the end; it must not exist.
        extra: more content for the manifest; read when the block ends.

    Raises:
        UsageError: `path` exists, or a folder that acorn did not make has the name `X.new`.
        ResourceError: the disk is full or cannot be written.
    """
    path = path.absolute()
    if path.exists():
        raise UsageError(f"{path} already exists.", where=str(path), fix="name another folder, or remove this one")
    fresh = _beside(path, ".new")
    if os.path.lexists(fresh) and not _is_ours(fresh):
        raise UsageError(
            f"acorn needs the name {fresh}, but a folder that acorn did not make has it.",
            where=str(fresh),
            fix="move it, or name another folder",
        )
    with disk_errors(path):
        make_folders(fresh.parent)
        fresh.mkdir(exist_ok=True)
        (fresh / MARKER).touch()
        sync_folder(fresh)
    try:
        yield fresh
    except OSError as error:
        if _is_about_writing(error, fresh):
            raise disk_error(error, path, 0) from error
        raise
    with disk_errors(path):
        _write_manifest(fresh, extra)
        (fresh / MARKER).unlink()
        _move_into_place(fresh, path)


def check_no_old(path: Path) -> None:
    """Refuses `X.old`, which writing `X` would remove, where it may be a copy that the user put aside.

    Raises:
        UsageError: it is there.
    """
    old = _beside(path.absolute(), ".old")
    if os.path.lexists(old):
        raise UsageError(
            f"{old} is in the way: writing {path.name} would remove it.",
            where=str(old),
            fix="rename it, or name another folder",
        )


def link_folder(source: Path, path: Path) -> None:
    """Makes the folder `source`, which `new_folder` made, also available at `path`, replacing what is there.

    The files are hard links where the file system supports them, otherwise copies. Files of such folders are never
    modified, so removing one folder does not affect the other.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    path = path.absolute()
    fresh = _beside(path, ".new")
    with disk_errors(path):
        settle(path)
        make_folders(path.parent)
        fresh.mkdir()
        (fresh / MARKER).touch()
        sync_folder(fresh)
        for name in [*_file_names(source), MANIFEST]:
            try:
                os.link(source / name, fresh / name)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source / name, fresh / name)
                with open(fresh / name, "rb+") as file:
                    sync_file(file.fileno())
        (fresh / MARKER).unlink()
        sync_folder(fresh)
        _move_into_place(fresh, path)


def settle(path: Path) -> None:
    """Finishes an interrupted replacement of the folder `path`: afterwards it is the old folder or the new one.

    For writers only, which hold the run's lock. An `X.new` without its manifest is removed. `X.old` is the previous
    `X`: if there is no `X`, a complete `X.new` becomes `X`; otherwise `X.old` becomes `X` again, in whatever state.

    Raises:
        UsageError: a folder that acorn did not make has one of these names. It is left alone.
    """
    leftovers = [folder for folder in (_beside(path, ".new"), _beside(path, ".old")) if folder.exists()]
    for folder in leftovers:
        if not _is_ours(folder):
            raise UsageError(
                f"acorn needs the name {folder}, but a folder that acorn did not make has it.",
                where=str(folder),
                fix="move it, or name another folder",
            )
    if not leftovers:
        return
    with disk_errors(path):
        if not path.exists() and (found := readable(path)) != path:
            (found / MARKER).unlink(missing_ok=True)
            os.replace(found, path)
        sync_folder(path.parent)  # before the other one is removed: the renames may not be on the disk yet
        for folder in leftovers:
            remove_folder(folder)


def readable(path: Path) -> Path:
    """Where the folder `path` can be read now: under its own name or, while it is being replaced, beside it."""
    fresh, old = _beside(path, ".new"), _beside(path, ".old")
    if path.exists():
        return path
    if (fresh / MANIFEST).exists() and not verify_folder(fresh):
        return fresh
    return old if (old / MANIFEST).exists() else path


def remove_folder(path: Path) -> None:
    """Removes a folder that acorn made, if it exists. After an interruption the rest still counts as acorn's."""
    if not path.is_dir():
        return
    keep = {MANIFEST, MARKER}
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in keep:
            entry.unlink()
    with contextlib.suppress(OSError):  # matters after a power loss only; a failing disk must not stop the removal
        sync_folder(path)
    for name in keep:
        (path / name).unlink(missing_ok=True)
    path.rmdir()


def verify_folder(path: Path, progress: Progress = QUIET) -> list[str]:
    """What is wrong with a folder that `new_folder` made: one line per fault, with the file's name; `[]`: nothing.

    Raises:
        InputError: reading the folder or one of its files is not permitted, so it cannot be checked.
    """
    if not path.is_dir():
        return [f"{path}: is not a folder"]
    try:
        manifest = read_json(path / MANIFEST)
        if not is_sealed(manifest):
            return [f"{path / MANIFEST}: was changed after it was written (its SHA-256 differs)"]
        listed = manifest["files"]
        entries = {str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in listed.items()}
    except DamageError as error:
        return [f"{path / MANIFEST}: {error.what}"]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return [f"{path / MANIFEST}: is not a manifest"]
    faults = []
    task, done, total = f"checking {path.name}", 0, sum(size for _, size in entries.values())
    for name, (digest, size) in sorted(entries.items()):
        progress.at(task, done, total)
        done += size
        file = path / name
        if Path(name).name != name or "\0" in name:
            faults.append(f"{path / MANIFEST}: names a file outside its folder: {name!r}")
        elif not os.path.isfile(file):  # unlike Path.is_file, False for an impossible name
            faults.append(f"{file}: is missing ({MANIFEST} lists it)")
        else:
            faults += _faults_of(file, digest, size)
    progress.end(task)
    try:
        added = sorted(set(_file_names(path)) - set(entries))
    except PermissionError:
        raise permission_denied(path) from None
    except OSError as error:  # such as a folder removed in the meantime
        return [*faults, f"{path}: cannot be read ({error.strerror})"]
    faults += [f"{path / name}: was added later ({MANIFEST} does not list it)" for name in added]
    return faults


def _faults_of(file: Path, digest: str, size: int) -> list[str]:
    """What is wrong with one file of a folder."""
    try:
        if file.stat().st_size != size:
            return [f"{file}: has {counted(file.stat().st_size, 'byte')}, not {size:,}"]
        if sha256_of(file) != digest:
            return [f"{file}: its content is not what {MANIFEST} lists (SHA-256 differs)"]
    except PermissionError:
        raise permission_denied(file) from None
    except OSError as error:
        return [f"{file}: cannot be read ({error.strerror})"]
    return []


def _write_manifest(folder: Path, extra: dict[str, Any]) -> None:
    """Flushes every file of `folder`, then writes its manifest last."""
    entries = {}
    for name in _file_names(folder):
        with open(folder / name, "rb+") as file:
            sync_file(file.fileno())
        entries[name] = {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
    write_sealed_json(folder / MANIFEST, {**extra, "files": entries})


def _move_into_place(fresh: Path, path: Path) -> None:
    """Gives a finished folder its name. Whichever renames reach the disk, a complete old or new folder is found."""
    old = _beside(path, ".old")
    replaces = path.exists()
    if replaces:
        if not _is_ours(path):  # it lost its manifest; mark it, so that it may be removed
            (path / MARKER).touch()
            sync_folder(path)
        os.replace(path, old)
    try:
        os.replace(fresh, path)
    except OSError:
        if replaces:
            os.replace(old, path)
        raise
    sync_folder(path.parent)  # before the old one is removed
    with contextlib.suppress(OSError):  # the new folder is in place; failing to remove the old one is harmless
        remove_folder(old)


def _is_ours(folder: Path) -> bool:
    """Whether acorn made this folder, even in part. An empty one counts: nothing in it can be lost."""
    if not folder.is_dir():
        return False
    # .nfs*: NFS keeps a removed file under such a name while somebody reads it.
    is_empty = all(entry.name.startswith(".nfs") for entry in folder.iterdir())
    return is_empty or (folder / MANIFEST).exists() or (folder / MARKER).exists()


def _file_names(folder: Path) -> list[str]:
    """Files of a folder without its manifest and without hidden files (names that begin with a dot)."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name != MANIFEST and not entry.name.startswith("."))


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _is_about_writing(error: OSError, folder: Path) -> bool:
    """Whether an error inside a `new_folder` block comes from the disk, not from an input or a connection."""
    named = error.filename if isinstance(error.filename, str | os.PathLike) else ""
    return error.errno in DISK_FAULTS or (bool(named) and Path(named).is_relative_to(folder))
