"""A too small address space is refused before a library crashes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from acorn.errors import ResourceError
from acorn.runtime import address_space
from acorn.runtime.address_space import THREAD_BYTES, address_space_left, check_address_space, is_out_of_memory

resource = pytest.importorskip("resource", reason="needs POSIX")
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux, which keeps such limits")


def used(entry: str) -> int:
    lines = address_space.STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(entry))


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch):
    """Simulates limits; nothing is really limited."""
    limits = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], resource.RLIM_INFINITY))
    return limits


@needs_proc
@pytest.mark.parametrize(("which", "entry", "command"), [("AS", "VmSize", "-v"), ("DATA", "VmData", "-d")])
def test_training_needs_enough_address_space(limited: dict, which: str, entry: str, command: str) -> None:
    check_address_space("training", threads=2)
    assert address_space_left() is None
    limited[getattr(resource, f"RLIMIT_{which}")] = used(entry) + address_space.TRAINING_BYTES + 10**7
    check_address_space("training", threads=2)
    assert 10**7 < address_space_left() < address_space.TRAINING_BYTES + 10**7  # type: ignore[operator]
    with pytest.raises(ResourceError, match=r"This process may take [\d,]+ MB") as caught:
        check_address_space("training", threads=2 + 10**8 // THREAD_BYTES)
    assert caught.value.where.startswith(f"ulimit {command} ")
    assert f"ulimit {command} unlimited" in caught.value.fix
    limited[getattr(resource, f"RLIMIT_{which}")] = used(entry) + 10**7
    check_address_space("torch")  # which is loaded already
    with pytest.raises(ResourceError):
        check_address_space("training", threads=2)
    assert address_space_left() == 0


PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (900_000 * 1024, resource.RLIM_INFINITY))
sys.argv = ["acorn", *sys.argv[1:]]
from acorn.cli.main import main
main()
"""


@needs_proc
@pytest.mark.fault(26)
@pytest.mark.parametrize(("arguments", "code"), [(["pretrain", "small"], 6), (["pretrain", "small", "--help"], 0)])
def test_a_command_under_a_real_limit(arguments: list[str], code: int) -> None:
    """Fault 26: it used to crash wherever a library was refused memory."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("acorn: This process may take 922 MB of address space;") == (code == 6)


def test_error_messages_of_libraries(limited: dict) -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive"))  # without a limit it has other causes
    assert not is_out_of_memory(ImportError("x.so: failed to map segment from shared object"))
    if sys.platform.startswith("linux"):
        limited[resource.RLIMIT_AS] = 2**30
        assert is_out_of_memory(RuntimeError("could not create a primitive"))
        assert is_out_of_memory(ImportError("x.so: failed to map segment from shared object"))
