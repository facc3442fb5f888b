"""Durable writes: after a crash a file holds either its old content or all of the new.

The content is written under a temporary name, flushed to disk (fsync) and renamed; then the folder is flushed. A file
that carries its own digest is "sealed": a later change is noticed when it is read. Whole folders are in `folders.py`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from acorn.errors import DamageError, InputError, ResourceError, UsageError, shown

OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}
DISK_FAULTS = OUT_OF_SPACE | {errno.EIO, errno.EROFS, errno.EFBIG}
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.ENOTTY, errno.ENOSYS}
SEAL = "sha256"
"""Key under which a JSON object carries the digest of the rest of itself."""

TEMPORARY = re.compile(r"(.+)\.([0-9]+)\.tmp")
"""Names of files being written: the name that the file is to get, and the id of the writing process."""


def write_file(path: Path, content: bytes | str) -> None:
    """Writes `path` durably: after a crash it holds either its old content or all of the new.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with disk_errors(path, needed=len(data)):
        make_folders(path.parent)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                sync_file(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON with sorted keys, durably.

    A lone surrogate (part of a file name that is not UTF-8) is written as a JSON escape.
    """
    write_file(path, to_json(value).encode("utf-8", "backslashreplace"))


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes an object as JSON with its own digest, so that a later change is noticed when it is read."""
    write_json(path, seal(value))


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` with the SHA-256 of its other entries under `SEAL`. Layout and key order do not matter."""
    rest = {key: entry for key, entry in value.items() if key != SEAL}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # JSON can spell a lone surrogate and UTF-8 cannot; that must not fail here.
    return {**rest, SEAL: hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()}


def is_sealed(value: Any) -> bool:
    """Whether `value` is an object with its own digest, and the digest matches."""
    return isinstance(value, dict) and value.get(SEAL) == seal(value)[SEAL]


def read_sealed_json(path: Path) -> dict[str, Any]:
    """The object in `path`, which `write_sealed_json` wrote, without its digest.

    Raises:
        DamageError: it is missing, not JSON, or was changed.
    """
    value = read_json(path)
    if not is_sealed(value):
        raise DamageError(
            f"{path.name} was changed after it was written (its SHA-256 differs).",
            where=str(path),
            fix="restore it from a copy, or create it again",
        )
    return {key: entry for key, entry in value.items() if key != SEAL}


def to_json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path, fix: str = "restore the folder from a copy, or create it again") -> Any:
    """The JSON in `path`.

    Args:
        fix: the advice of the error message.

    Raises:
        DamageError: the file is missing, or not JSON.
        InputError: reading it is not permitted.
    """
    try:
        return json.loads(path.read_bytes())
    except PermissionError:
        raise permission_denied(path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DamageError(
            f"{path.name} cannot be read: {error}",
            where=str(path),
            fix=fix,
        ) from None


def remove_temporary_files(folder: Path) -> None:
    """Removes temporary files in `folder` whose writing process no longer runs."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        match = TEMPORARY.fullmatch(entry.name)
        if match and entry.is_file() and not _is_running(int(match[2])):
            with contextlib.suppress(OSError):
                entry.unlink()


def half_written(name: str) -> str | None:
    """The name that the temporary file `name` was to get; None: `name` is none of `write_file`'s."""
    match = TEMPORARY.fullmatch(name)
    return match[1] if match else None


def check_unicode(path: Path | str, where: str) -> None:
    """Refuses a path that is not Unicode text: results could not name it, and some libraries cannot open it.

    Python represents each byte of a file name that is not UTF-8 as a lone surrogate.

    Args:
        where: what named it, for the message.

    Raises:
        UsageError: the message shows such bytes as escapes.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(
            "This path is not Unicode text (UTF-8).",
            where=f"{where}: {str(path)!a}",
            fix="rename the file or folder, or use another one; a text file can also be named by a glob or its folder",
        ) from None


def path_named(name: object, where: str) -> Path:
    """The path that a user named, which may be any string and, from Python, anything.

    Args:
        where: the option, argument or setting that named it, for the message.

    Raises:
        UsageError: it is not a string or path, is empty (which is not the current folder: it is what a shell makes of
            a variable that is not set), or no file can have this name.
    """
    if not isinstance(name, str | os.PathLike) or not isinstance(text := os.fspath(name), str):
        raise UsageError(
            f"{shown(name)} is not a path.", where=where, fix="give a string or a pathlib.Path, such as 'runs/mine'"
        )
    if not text:
        raise UsageError(
            "An empty string is not a path.",
            where=where,
            fix='name a file or folder; write "." for the current folder',
        )
    try:
        os.fsencode(text)
        is_possible = "\0" not in text
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise UsageError("No file can have this name.", where=f"{where}: {text!a}", fix="name another file or folder")
    return Path(text)


def check_links(path: Path, where: str) -> None:
    """Refuses a path to write whose name, or a folder above it, is a symbolic link that leads nowhere.

    Such a path neither exists nor can be created.

    Args:
        where: the option or argument that named it, for the message.

    Raises:
        UsageError: there is such a link.
    """
    for link in (path, *path.parents):
        if os.path.islink(link) and not os.path.exists(link):
            raise UsageError(
                f"{link} is a symbolic link to {os.readlink(link)}, which cannot be followed or does not exist.",
                where=where,
                fix="remove the link, create what it points to, or name another file or folder",
            )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def permission_denied(path: Path) -> InputError:
    """The error to show for a file or folder that this user may not read."""
    return InputError(
        f"{path} cannot be read: permission denied.",
        where=str(path.absolute()),
        fix=f"give yourself permission to read it (chmod -R u+rX {shlex.quote(str(path))}), or run the command as its "
        "owner",
    )


def check_readable(*paths: Path) -> None:
    """Refuses files and folders that exist and that this user may not read.

    Raises:
        InputError: there is one.
    """
    for path in paths:
        if blocked := _unreadable_part(path):
            raise permission_denied(blocked)


@contextlib.contextmanager
def read_errors() -> Iterator[None]:
    """Turns a PermissionError of reading a file or folder into an InputError that names it."""
    try:
        yield
    except PermissionError as error:
        named = error.filename if isinstance(error.filename, str | os.PathLike) else ""
        if blocked := _unreadable_part(Path(named)):
            raise permission_denied(blocked) from error
        raise


def _unreadable_part(path: Path) -> Path | None:
    """`path` or the folder above it that this user may not read; None: all of it can be read, or `path` is absent."""
    for folder in reversed(path.parents):
        if os.path.isdir(folder) and not _may(folder, os.X_OK):
            return folder
    needed = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK
    return path if os.path.exists(path) and not _may(path, needed) else None


def _may(path: Path, access: int) -> bool:
    """Whether this process has the permissions `access`, by the user it acts as where the system can tell."""
    return os.access(path, access, effective_ids=os.access in os.supports_effective_ids)


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that holds `path` (or will: its nearest existing parent)."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def sync_file(descriptor: int) -> None:
    """Waits until what was written to an open file is on the disk itself.

    On macOS fsync only reaches the drive's cache, which a power loss empties; F_FULLFSYNC reaches the disk, on file
    systems that support it.
    """
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
    os.fsync(descriptor)


def sync_folder(path: Path) -> None:
    """Waits until new names, renames and removals in `path` are on the disk.

    Windows has no such call and orders these changes itself. Some network file systems refuse it, without any order.
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_file(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def make_folders(path: Path) -> None:
    """Creates `path` and its missing parents, durably."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    there = missing[-1].parent if missing else path
    if not there.is_dir():  # the system's own message does not name the file that is in the way
        raise NotADirectoryError(errno.ENOTDIR, f"{there} is a file", str(path))
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_folder(folder.parent)


@contextlib.contextmanager
def disk_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Turns an OSError of writing `path` (`needed` bytes) into a ResourceError."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path, needed) from error


def disk_error(error: OSError, path: Path, needed: int) -> ResourceError:
    """The error to show for an OSError of writing `path`: it names `path`, not the temporary file beside it."""
    intact = "; what was there before is intact" if os.path.exists(path) else ""
    named = error.filename if isinstance(error.filename, str | os.PathLike) else path
    if error.errno in OUT_OF_SPACE:
        want = f"{needed:,} bytes were needed, " if needed else ""
        return ResourceError(
            f"The disk is full: {want}{free_bytes(path):,} bytes are free.",
            where=str(path),
            fix=f"free some space, or name a folder on another disk{intact}",
        )
    return ResourceError(
        f"Writing failed: {error.strerror or error}.",
        where=str(named if Path(named).is_relative_to(path) else path),
        fix=f"check that the folder can be written, or name another one{intact}",
    )


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()
