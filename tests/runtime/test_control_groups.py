"""Limits of nested control groups of both versions, on a host and in a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from acorn.runtime import control_groups
from acorn.runtime.control_groups import memory_left

V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
NO_LIMIT_V1 = "9223372036854771712"


class Machine:
    """The files of a process under /proc/self, and the mounts, in a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.self = root / "self"
        self.self.mkdir()
        self.mounts = ["21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw"]

    def mount(self, name: str, shown: str, kind: str, options: str) -> Path:
        place = self.root / name
        place.mkdir()
        written = str(place).replace(" ", "\\040")
        self.mounts.append(f"35 31 0:32 {shown} {written} rw,nosuid shared:9 - {kind} cgroup {options}")
        (self.self / "mountinfo").write_text("\n".join(self.mounts) + "\n")
        return place

    def belongs_to(self, *lines: str) -> None:
        (self.self / "cgroup").write_text("\n".join(lines) + "\n")


def group(folder: Path, files: tuple[str, str, str], limit: str, used: int, cached: int | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / files[0]).write_text(f"{limit}\n")
    (folder / files[1]).write_text(f"{used}\n")
    if cached is not None:
        (folder / "memory.stat").write_text(f"anon 5\n{files[2]} {cached}\nactive_file 7\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(control_groups, "PROC_SELF", machine.self)
    return machine


def test_limits_of_all_groups_above_apply(machine: Machine) -> None:
    """Version 2: the slice of the session has a limit, the process's own group has none."""
    machine.belongs_to("0::/user.slice/user-1000.slice/run.scope")
    top = machine.mount("a cgroup", "/", "cgroup2", "rw")
    group(top / "user.slice/user-1000.slice/run.scope", V2, "max", 100)
    group(top / "user.slice/user-1000.slice", V2, "2000", 500)
    group(top / "user.slice", V2, "9000", 600)
    assert memory_left() == 1500
    group(top / "user.slice/user-1000.slice/run.scope", V2, "700", 100)
    assert memory_left() == 600
    group(top / "user.slice", V2, "1000", 990)
    assert memory_left() == 10
    group(top / "user.slice", V2, "1000", 1100)  # usage may exceed the limit briefly
    assert memory_left() == 0


def test_cached_files_count_as_free(machine: Machine) -> None:
    machine.belongs_to("0::/job")
    group(machine.mount("cgroup", "/", "cgroup2", "rw") / "job", V2, "1000", 900, cached=850)
    assert memory_left() == 950


def test_version_1(machine: Machine) -> None:
    """With an empty version 2 mount, as on hybrid systems; only the memory controller counts."""
    machine.belongs_to("9:name=systemd:/x", "4:cpu,cpuacct:/other", "3:hugetlb,memory:/slurm/job_7/step_0", "0::/")
    machine.mount("unified", "/", "cgroup2", "rw")
    group(machine.mount("cpu", "/", "cgroup", "rw,cpu,cpuacct") / "slurm", V1, "1", 1)
    top = machine.mount("memory", "/", "cgroup", "rw,memory,hugetlb")
    group(top, V1, NO_LIMIT_V1, 9000)
    group(top / "slurm/job_7/step_0", V1, NO_LIMIT_V1, 100)
    assert memory_left() is None
    group(top / "slurm/job_7", V1, "4000", 1000, cached=200)
    assert memory_left() == 3200


@pytest.mark.parametrize("path", ["/docker/12ab/inner", "/docker/12ab", "/../../elsewhere"])
def test_in_a_container_the_mount_contains_its_own_part(machine: Machine, path: str) -> None:
    machine.belongs_to(f"4:memory:{path}")
    top = machine.mount("memory", "/docker/12ab", "cgroup", "rw,memory")
    group(top, V1, "1000", 100)
    assert memory_left() == 900
    group(top / "inner", V1, "500", 100)
    assert memory_left() == (400 if path.endswith("inner") else 900)


def test_without_control_groups(machine: Machine) -> None:
    assert memory_left() is None
    machine.belongs_to("garbled")
    machine.mount("cgroup", "/", "cgroup2", "rw")
    assert memory_left() is None
