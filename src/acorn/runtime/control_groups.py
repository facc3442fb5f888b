"""Memory that Linux's control groups leave to this process (kernel documentation of cgroups v2 and v1).

A process belongs to one group of each hierarchy, and the limits of all groups above it apply too. /proc/self/cgroup
names the group, /proc/self/mountinfo the mount point of the hierarchy. In a container, the mount may contain only the
part of the hierarchy below the container's own group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC_SELF = Path("/proc/self")

UNLIMITED_BYTES = 2**60
"""cgroup v1 expresses "no limit" as a number of bytes above this one."""

FILES = {
    "cgroup2": ("memory.max", "memory.current", "inactive_file"),
    "cgroup": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Type of mount -> files of the limit and the usage, and the entry of memory.stat for memory that can be reclaimed."""


def memory_left() -> int | None:
    """Bytes until the nearest limit of this process's groups; None: no limit, or no control groups."""
    left = [_left(folder, kind) for kind, mounted, below in _groups() for folder in _up_to(mounted, below)]
    return min((value for value in left if value is not None), default=None)


def _groups() -> Iterator[tuple[str, Path, PurePosixPath]]:
    """For each mount that accounts for memory: its type, its mount point and the process's group relative to it."""
    try:
        own = dict(_parse_group(line) for line in (PROC_SELF / "cgroup").read_text().splitlines())
        mounts = (PROC_SELF / "mountinfo").read_text().splitlines()
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
        is_below = group.is_relative_to(root)  # else the group is outside the mount, and its root is the best guess
        yield kind, Path(mounted), group.relative_to(root) if is_below else PurePosixPath()


def _parse_group(line: str) -> tuple[str, str]:
    """A line of /proc/self/cgroup as controllers ("memory" if that is among them, "" for version 2) and path."""
    _, controllers, path = line.split(":", 2)
    return ("memory" if "memory" in controllers.split(",") else controllers), path


def _up_to(mounted: Path, below: PurePosixPath) -> list[Path]:
    return [mounted / below, *(mounted / parent for parent in below.parents)]


def _left(group: Path, kind: str) -> int | None:
    """Bytes that one group leaves. Cached file contents count as free, because the kernel reclaims them first."""
    limit_file, used_file, cached = FILES[kind]
    try:
        limit = int((group / limit_file).read_text())  # a ValueError for "max", which means no limit
        used = int((group / used_file).read_text())
    except (OSError, ValueError):
        return None
    try:
        found = re.search(rf"^{cached} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        found = None
    needed = max(0, used - (int(found[1]) if found else 0))
    return None if limit >= UNLIMITED_BYTES else max(0, limit - needed)


def _unescaped(field: str) -> str:
    r"""A path of mountinfo with escapes such as \040 (a space) decoded."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
