"""Records what a program does to a folder, as a list of operations that a disk may lose in a power loss.

Files and folders are told apart by a number of their own, so that a rename moves one and does not copy it. The tree is
looked at before and after each call that could change it (flush, rename, removal, creation); what differs is an
operation. Writers that Python does not see, such as the safetensors library, are seen by what they leave.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Write:
    """The new content of a file; on the disk only after a flush of the file."""

    file: int
    content: bytes


@dataclass(frozen=True)
class Rename:
    """A rename in `folder`. Without `source` a name is created, without `target` one is removed."""

    folder: int
    source: str | None
    target: str | None
    entry: int
    is_folder: bool


@dataclass(frozen=True)
class Flush:
    """The content of a file, or the names in a folder, are on the disk."""

    entry: int


@dataclass(frozen=True)
class Told:
    """The program was told, or told its user, that `what` is saved."""

    what: str
    content: Any


Operation = Write | Rename | Flush | Told
ROOT = 0


class Recorder:
    """Records what happens in `root` while `recording()` lasts, in `operations`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.operations: list[Operation] = []
        self._known: dict[int, int] = {}  # inode -> number
        self._next = ROOT + 1
        self._tree: dict[int, dict[str, int]] = {ROOT: {}}  # folder -> name -> number
        self._contents: dict[int, bytes] = {}
        self._folders: set[int] = {ROOT}

    def tell(self, what: str, content: Any) -> None:
        """Records that the program now relies on `what`."""
        self._look()
        self.operations.append(Told(what, content))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Intercepts the functions of `os` that Python's libraries and acorn call."""
        with ExitStack() as stack:
            for name in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "truncate"):
                stack.enter_context(mock.patch.object(os, name, self._around(getattr(os, name))))
            stack.enter_context(mock.patch.object(os, "fsync", self._flushing(os.fsync)))
            yield
        self._look()

    def _around(self, call: Any) -> Any:
        def watched(*arguments: Any, **options: Any) -> Any:
            self._look()
            result = call(*arguments, **options)
            self._look()
            return result

        return watched

    def _flushing(self, fsync: Any) -> Any:
        def watched(descriptor: int) -> None:
            self._look()
            fsync(descriptor)
            inode = os.fstat(descriptor).st_ino
            entry = ROOT if inode == self.root.stat().st_ino else self._known.get(inode)
            if entry is not None:
                self.operations.append(Flush(entry))

        return watched

    def _look(self) -> None:
        """Compares the tree with its last known state, and appends the operations."""
        tree, contents, folders, inodes = self._scan()
        for folder in sorted(tree.keys() | self._tree.keys()):
            before, now = self._tree.get(folder, {}), tree.get(folder, {})
            gone = {entry: name for name, entry in before.items() if now.get(name) != entry}
            come = {entry: name for name, entry in now.items() if before.get(name) != entry}
            if folder not in tree:
                continue  # it was moved under its own name
            for entry, name in come.items():
                self.operations.append(Rename(folder, gone.pop(entry, None), name, entry, entry in folders))
            for entry, name in gone.items():
                if name not in now:  # else another one replaced it
                    self.operations.append(Rename(folder, name, None, entry, entry in self._folders))
        for file, content in contents.items():
            if self._contents.get(file) != content:
                self.operations.append(Write(file, content))
        self._tree, self._contents, self._folders, self._known = tree, contents, folders, inodes

    def _scan(self) -> tuple[dict[int, dict[str, int]], dict[int, bytes], set[int], dict[int, int]]:
        tree: dict[int, dict[str, int]] = {}
        contents: dict[int, bytes] = {}
        folders = {ROOT}
        inodes: dict[int, int] = {}

        def number_of(inode: int) -> int:
            known = self._known.get(inode)
            if known is None:
                known, self._next = self._next, self._next + 1
            inodes[inode] = known
            return known

        def walk(path: Path, folder: int) -> None:
            tree[folder] = {}
            for entry in sorted(os.scandir(path), key=lambda found: found.name):
                number = number_of(entry.stat(follow_symlinks=False).st_ino)
                tree[folder][entry.name] = number
                if entry.is_dir():
                    folders.add(number)
                    walk(Path(entry.path), number)
                else:
                    contents[number] = Path(entry.path).read_bytes()

        walk(self.root, ROOT)
        return tree, contents, folders, inodes
