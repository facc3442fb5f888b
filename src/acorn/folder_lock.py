"""A lock on a folder; it ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import IO

from acorn.errors import UsageError
from acorn.files import disk_errors, make_folders

IN_USE = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}


class FolderLock:
    """Keeps a second process out of a folder while the block runs.

    The operating system holds the lock and releases it when the process ends for any reason. The process id and host
    in the file are for the error message only.

    Raises:
        UsageError: another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> FolderLock:
        with disk_errors(self.path.parent):
            make_folders(self.path.parent)
        self._file = self._open_and_lock()
        while not self._is_the_one_there(self._file):  # the previous holder removed the file in the meantime
            self._file.close()
            self._file = self._open_and_lock()
        with contextlib.suppress(OSError):  # the lock is held whatever the file says
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def _open_and_lock(self) -> IO[str]:
        with disk_errors(self.path):
            file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 - open as long as the lock is held
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in IN_USE:
                file.close()
                with disk_errors(self.path):
                    raise
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            raise UsageError(
                f"Another run is using this folder ({holder}).",
                where=str(self.path.parent),
                fix="wait for it, stop it, or name another folder with --out",
            ) from None
        return file

    def _is_the_one_there(self, file: IO[str]) -> bool:
        try:
            there = self.path.stat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(file.fileno()))


def _lock(file: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(1 << 30)  # all processes lock the same byte; the text before it stays readable
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
