"""Conditions for every test: no network, no use of the user's caches, one thread, no randomness between runs."""

from __future__ import annotations

import ipaddress
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# The parent process may ignore signals (nohup, background jobs of a shell), which child processes inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The libraries of PyTorch and NumPy read these when they load, also in child processes. The tensors of tests are so
# small that a second thread makes them slower. With one thread, sums are the same on any number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The Hugging Face libraries read these when they load: no request to the Hub, no file in the user's cache.
os.environ["HF_HUB_OFFLINE"] = "1"
_hugging_face_cache = tempfile.TemporaryDirectory(prefix="acorn-tests-", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = _hugging_face_cache.name

# For compiled C code and the measured peak. It starts with the compiled code of the user's own cache.
_acorn_cache = tempfile.TemporaryDirectory(prefix="acorn-tests-", ignore_cleanup_errors=True)
_users_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
for _library in (_users_cache / "acorn").glob("*.so"):
    Path(_acorn_cache.name, "acorn").mkdir(exist_ok=True)
    shutil.copy(_library, Path(_acorn_cache.name, "acorn"))
os.environ.setdefault("MPLCONFIGDIR", str(_users_cache / "matplotlib"))  # making its list of fonts takes seconds
os.environ["XDG_CACHE_HOME"] = _acorn_cache.name

# Tests must not fail because the machine is busy, nor use different examples each time.
hypothesis.settings.register_profile("acorn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("acorn")


def pytest_configure() -> None:
    """Gives each process of a parallel run its own cores, which are then "all cores" for it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        own = cores[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]
        os.sched_setaffinity(0, own or cores)


# A whole run flushes a hundred files, which takes longer than writing them. No test cuts the power: those of
# tests/torture record what is flushed, and the child processes of other tests flush as users' runs do.
os.fsync = lambda descriptor: None

LONG_FILES = (
    *("torture/test_short_forms.py", "run/test_finetune.py", "run/test_pretrain.py", "run/test_finetune_others.py"),
    *(
        "torture/test_server_forms.py",
        "test_release.py",
        "torture/test_calls.py",
        "torture/test_power.py",
        "test_no_pickle.py",
        "test_tutorials.py",
    ),
)
"""Started first: a file that takes long, begun at the end, would keep one core busy and leave the others idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of `LONG_FILES` first; the rest keep their order."""
    tests = Path(__file__).parent
    rank = {tests / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


_network_attempts: list[str] = []


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: sees every connection and name lookup of this process, from any library."""
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else "localhost"  # a path: a local socket
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not _is_this_machine(host):
        _network_attempts.append(f"{event} {host}")
        raise RuntimeError(f"a test tried to use the network: {event} {host}")


def _is_this_machine(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def network_attempts() -> Iterator[list[str]]:
    """Uses of the network during a test. Any of them fails the test, because a library may swallow the error."""
    _network_attempts.clear()
    yield _network_attempts
    assert not _network_attempts, f"the test tried to use the network: {_network_attempts}"


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Fails a test that leaves a signal ignored: runs of later tests and their child processes would not stop."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    left = {number.name for number, handler in before.items() if signal.getsignal(number) is not handler}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert not left, f"the test left other handlers of {', '.join(sorted(left))}"


CPUS = {
    "this CPU": [],
    "AVX2": ["-march=haswell"],
    "SSE": ["-march=x86-64"],
    "tiles": ["-D__AMX_BF16__", f"-I{Path(__file__).parent / 'emulated'}"],
}
"""Compiler options, after acorn's own, for other CPUs whose code this CPU can run."""


@pytest.fixture(scope="session")
def compiled_for(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """CPU -> folder of the C files compiled for it, shared by all test files."""
    return {name: tmp_path_factory.mktemp("cpu") for name in CPUS}


@pytest.fixture(scope="module", params=CPUS)
def cpu(request: pytest.FixtureRequest, compiled_for: dict[str, Path]) -> Iterator[str]:
    """Runs the test with acorn's C files compiled for each of several kinds of CPUs."""
    import torch

    from acorn.kernels.build import Unavailable, c_library, find_compiler

    if isinstance(c_library("decode"), Unavailable):
        pytest.skip("needs a C compiler with OpenMP")
    if CPUS[request.param] and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("needs an x86-64 CPU with AVX2")
    with pytest.MonkeyPatch.context() as patch:
        if CPUS[request.param]:
            folder = compiled_for[request.param]
            script = folder / "cc"
            compiler = shlex.join(find_compiler() or [])
            script.write_text(f'#!/bin/sh\nexec {compiler} "$@" {" ".join(CPUS[request.param])}\n')
            script.chmod(0o755)
            patch.setenv("CC", str(script))
            patch.setenv("XDG_CACHE_HOME", str(folder))
        c_library.cache_clear()
        yield request.param
    c_library.cache_clear()
