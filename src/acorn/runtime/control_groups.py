"""How much memory Linux's control groups leave to this process (control groups v2 and v1: kernel documentation).

A process belongs to one group of each hierarchy, and the limit of every group above that one holds for it too. Which
group it is stands in /proc/self/cgroup, where a hierarchy is mounted in /proc/self/mountinfo. In a container the mount
may show only a part of the hierarchy, from the container's own group on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

SELF = Path("/proc/self")

UNLIMITED = 2**60
"""Version 1 has no word for it: the largest number of pages, in bytes."""

FILES = {
    "cgroup2": ("memory.max", "memory.current", "inactive_file"),
    "cgroup": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Kind of mount -> files of the limit and of the usage, and the entry of memory.stat for what could be given back."""


def memory_left() -> int | None:
    """Bytes until the nearest limit of a group that holds this process; None: no group limits it, or there are none."""
    left = [_left(folder, kind) for kind, mounted, below in _groups() for folder in _up_to(mounted, below)]
    return min((value for value in left if value is not None), default=None)


def _groups() -> Iterator[tuple[str, Path, PurePosixPath]]:
    """The kind of each mount that counts memory, where it is, and the process's group below that."""
    try:
        own = dict(_parse_group(line) for line in (SELF / "cgroup").read_text().splitlines())
        mounts = (SELF / "mountinfo").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        kind = kinds[0]
        controller = {"cgroup2": "", "cgroup": "memory"}.get(kind)
        if controller is None or controller not in own or (controller and controller not in kinds[-1].split(",")):
            continue
        root, mounted = (_unescaped(field) for field in fields[3:5])
        group = PurePosixPath(own[controller])
        is_below = group.is_relative_to(root)  # else the mount begins elsewhere: its top is as near as one gets
        yield kind, Path(mounted), group.relative_to(root) if is_below else PurePosixPath()


def _parse_group(line: str) -> tuple[str, str]:
    """A line of /proc/self/cgroup as controller ("memory", or "" for version 2; others by all their names) and path."""
    _, controllers, path = line.split(":", 2)
    return ("memory" if "memory" in controllers.split(",") else controllers), path


def _up_to(mounted: Path, below: PurePosixPath) -> list[Path]:
    return [mounted / below, *(mounted / parent for parent in below.parents)]


def _left(group: Path, kind: str) -> int | None:
    """Bytes that one group leaves. Files' content that is only cached is given back before the limit is reached."""
    limit_file, used_file, cached = FILES[kind]
    try:
        limit = int((group / limit_file).read_text())  # "max" is none
        used = int((group / used_file).read_text())
    except (OSError, ValueError):
        return None
    try:
        found = re.search(rf"^{cached} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        found = None
    needed = max(0, used - (int(found[1]) if found else 0))
    return None if limit >= UNLIMITED else max(0, limit - needed)


def _unescaped(field: str) -> str:
    r"""A path of mountinfo, where a space is \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
