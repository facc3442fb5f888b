"""The only place that writes durably: a file or folder appears whole under its name, or not at all.

A file goes to a temporary name, is flushed to the disk (fsync), renamed, and its folder flushed. A folder
is filled as `X.new`, gets a manifest with the SHA-256 of every file in it, and is renamed; when it replaces
an older one, that is `X.old` in between. A writer first settles what an interrupted one left (`settle`); a reader
changes nothing and asks `readable` which of the names holds the folder now. Folders are flat: files only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from acorn.errors import DamageError, ResourceError, UsageError
from acorn.run_folder import MANIFEST

OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}
DISK_FAULTS = OUT_OF_SPACE | {errno.EIO, errno.EROFS, errno.EFBIG}
IN_USE = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}
MARKER = ".being-written"
"""Stands in `X.new` from its first moment: only a folder with it (or with a manifest) is ours to remove."""


def write_file(path: Path, content: bytes | str) -> None:
    """Writes `path` so that after a crash it holds either its old content or all of the new.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with disk_errors(path, needed=len(data)):
        _make_folders(path.parent)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON with sorted keys, durably."""
    write_file(path, to_json(value))


def to_json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """The JSON in `path`.

    Raises:
        DamageError: it is not there, or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamageError(
            f"{path.name} cannot be read: {error}",
            where=str(path),
            mend="restore the folder from a copy, or make it anew",
        ) from None


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False, extra: dict[str, Any] | None = None) -> Iterator[Path]:
    """A folder to fill that appears as `path`, with its manifest, when the block ends without an error.

    Args:
        path: the name it gets at the end.
        replace: an existing folder of that name is replaced, else refused.
        extra: more content for the manifest; read when the block ends, so it may be filled inside it.

    Raises:
        UsageError: `path` exists and `replace` is false.
        ResourceError: the disk is full or cannot be written.
    """
    path = path.absolute()
    if path.exists() and not replace:
        raise UsageError(f"{path} exists already.", where=str(path), mend="name another folder, or remove this one")
    settle(path)
    fresh = _beside(path, ".new")
    with disk_errors(path):
        _make_folders(fresh.parent)
        fresh.mkdir()
        (fresh / MARKER).touch()
    try:
        yield fresh
        with disk_errors(path):
            (fresh / MARKER).unlink()
            _write_manifest(fresh, extra or {})
            _move_into_place(fresh, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, OSError) and _is_about_writing(error, fresh):
            raise _disk_error(error, path, 0) from error
        raise


def settle(path: Path) -> None:
    """Finishes a replacement of the folder `path` that was interrupted: afterwards it is the old one or the new one.

    For writers only, who hold the run's lock. `X.new` that never got its manifest goes. `X.old` is what `X` was: with
    no `X`, a complete `X.new` takes the name, else the old one takes it back.

    Raises:
        UsageError: a folder of that name is in the way which acorn did not make. It is left alone.
    """
    fresh, old = _beside(path, ".new"), _beside(path, ".old")
    for folder in (fresh, old):
        if folder.exists() and not ((folder / MANIFEST).exists() or (folder / MARKER).exists()):
            raise UsageError(
                f"{folder} is in the way, and acorn did not make it.",
                where=str(folder),
                mend="move it, or name another folder",
            )
    with disk_errors(path):
        if not path.exists() and (found := readable(path)) != path:
            os.replace(found, path)
            sync_folder(path.parent)
        for folder in (fresh, old):
            if folder.exists():
                shutil.rmtree(folder)


def readable(path: Path) -> Path:
    """Where the folder `path` can be read now: under its own name, or in the middle of being replaced."""
    if not path.exists():
        for candidate in (_beside(path, ".new"), _beside(path, ".old")):
            if (candidate / MANIFEST).exists() and not verify_folder(candidate):
                return candidate
    return path


def verify_folder(path: Path) -> list[str]:
    """What is wrong with a folder that `new_folder` made: nothing (`[]`), or one line a fault, files named."""
    if not path.is_dir():
        return [f"{path}: is not a folder"]
    try:
        listed = read_json(path / MANIFEST)["files"]
        entries = {str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in listed.items()}
    except DamageError as error:
        return [f"{path / MANIFEST}: {error.what}"]
    except (KeyError, TypeError, ValueError, AttributeError):
        return [f"{path / MANIFEST}: does not have the form of a manifest"]
    faults = []
    for name, (digest, size) in sorted(entries.items()):
        file = path / name
        if Path(name).name != name:
            faults.append(f"{path / MANIFEST}: names a file outside its folder: {name!r}")
        elif not file.is_file():
            faults.append(f"{file}: is missing")
        else:
            faults += _faults_of(file, digest, size)
    faults += [f"{path / name}: was added afterwards" for name in sorted(set(_file_names(path)) - set(entries))]
    return faults


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that holds `path` (or will: its nearest existing parent)."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def sync_folder(path: Path) -> None:
    """Makes renames inside `path` durable. Windows has no such call and orders them itself."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Turns an OSError of writing `path` (`needed` bytes) into a ResourceError."""
    try:
        yield
    except OSError as error:
        raise _disk_error(error, path, needed) from error


class FolderLock:
    """Keeps a second process out of a folder while the block runs.

    The operating system holds the lock and drops it when the process ends, however it ends; the pid and host
    written into the file only serve the message.

    Raises:
        UsageError: another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> FolderLock:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self.path, "a+", encoding="utf-8")
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in IN_USE:
                file.close()
                raise _disk_error(error, self.path, 0) from error
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            raise UsageError(
                f"Another run is using this folder ({holder}).",
                where=str(self.path.parent),
                mend="wait for it, stop it, or name another folder with --out",
            ) from None
        self._file = file
        with disk_errors(self.path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()


def _faults_of(file: Path, digest: str, size: int) -> list[str]:
    """What is wrong with one file of a folder."""
    try:
        if file.stat().st_size != size:
            return [f"{file}: has {file.stat().st_size} bytes, not {size}"]
        if sha256_of(file) != digest:
            return [f"{file}: its content is not what was written (SHA-256 differs)"]
    except OSError as error:
        return [f"{file}: cannot be read ({error.strerror})"]
    return []


def _lock(file: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(1 << 30)  # the same byte for everyone; text before it stays readable
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write_manifest(folder: Path, extra: dict[str, Any]) -> None:
    """Flushes every file of `folder`, then writes its manifest last."""
    entries = {}
    for name in _file_names(folder):
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())
        entries[name] = {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
    write_json(folder / MANIFEST, {**extra, "files": entries})


def _move_into_place(fresh: Path, path: Path) -> None:
    old = _beside(path, ".old")
    replaces = path.exists()
    if replaces:
        os.replace(path, old)
    try:
        os.replace(fresh, path)
    except OSError:
        if replaces:
            os.replace(old, path)
        raise
    sync_folder(path.parent)
    if replaces:  # the new folder stands: an old one that cannot be removed is no reason to fail
        shutil.rmtree(old, ignore_errors=True)


def _make_folders(path: Path) -> None:
    """Creates `path` and its missing parents, durably."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_folder(folder.parent)


def _file_names(folder: Path) -> list[str]:
    """Files of a folder but for its manifest and what desktops and checkouts add (names that begin with a dot)."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name != MANIFEST and not entry.name.startswith("."))


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _is_about_writing(error: OSError, folder: Path) -> bool:
    """Whether an error inside a `new_folder` block is the disk's, not that of an input or a connection."""
    named = error.filename if isinstance(error.filename, str | os.PathLike) else ""
    return error.errno in DISK_FAULTS or (bool(named) and Path(named).is_relative_to(folder))


def _disk_error(error: OSError, path: Path, needed: int) -> ResourceError:
    if error.errno in OUT_OF_SPACE:
        want = f"{needed:,} bytes were needed, " if needed else ""
        return ResourceError(
            f"The disk is full: {want}{free_bytes(path):,} bytes are free.",
            where=str(path),
            mend="free some space, or name a folder on another disk; what was there before still stands",
        )
    return ResourceError(
        f"Writing failed: {error.strerror or error}.",
        where=str(error.filename or path),
        mend="check that the folder can be written; what was there before still stands",
    )
