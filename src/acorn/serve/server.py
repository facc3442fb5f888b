"""Runs a server until it is stopped by a signal, or its model cannot be loaded."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from acorn.checkpoint.integrity import kind_of
from acorn.checkpoint.load import LoadedModel, load
from acorn.errors import StoppedError, UsageError
from acorn.model.int8 import round_to_int8
from acorn.progress import QUIET, Progress
from acorn.runtime.device import Runtime
from acorn.serve.access import Access, is_loopback
from acorn.serve.app import application
from acorn.serve.context import Context
from acorn.serve.limits import LIMITS, Limits
from acorn.serve.mailbox import delivery
from acorn.serve.protocol import protocol_of
from acorn.serve.scheduler import Scheduler

FILES_BESIDE_CONNECTIONS = 64
"""Open files of the process that are no connections, at most."""

SECONDS_TO_FLUSH = 2
"""How long connections may take to send what is written, once all answers are complete."""


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Attributes:
        key: None: none is needed.
        allowed_hosts: names that the server is called by, beside its own.
        slots: texts that are continued together.
        int8: the weights are rounded to 8 bits.
        compared: other runs or models that the page may compare with.
    """

    run: Path | str
    checkpoint: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    slots: int = 16
    int8: bool = False
    compared: tuple[Path, ...] = ()


class Server(uvicorn.Server):
    """A server of one model.

    Args:
        say: called with lines for the user.
        load_model: instead of loading the model that the settings name.
    Attributes:
        failure: why it had to stop: the model cannot be loaded, or the engine thread failed.
    """

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        *,
        say: Callable[[str], None],
        progress: Progress = QUIET,
        limits: Limits = LIMITS,
        load_model: Callable[[], LoadedModel] | None = None,
        scheduler: type[Scheduler] = Scheduler,
    ) -> None:
        _check_access(settings)
        self.settings, self._load = settings, load_model
        run = _run_folder(settings.run) if load_model is None or Path(settings.run).is_dir() else None
        compared = _compared(settings)
        self.socket = _bound(settings)
        limits = dataclasses.replace(limits, connections=_connections(limits.connections))
        self.context = Context(
            model_name(settings.run),
            runtime,
            settings.slots,
            limits,
            needs_key=settings.key is not None,
            run=run,
            compared=compared,
            int8=settings.int8,
        )
        access = Access.of(settings.host, settings.allowed_hosts, settings.key)
        super().__init__(
            uvicorn.Config(
                application(self.context, access),
                http=protocol_of(self.context),
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=SECONDS_TO_FLUSH,
            )
        )
        self._say, self._progress = say, progress
        self._scheduler = scheduler
        self.failure: BaseException | None = None
        self._signals: list[int] = []
        self._drain_until: float | None = None
        self._was_ready = False

    @property
    def url(self) -> str:
        """The address that it listens at."""
        host, port = self.socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def when_started(self) -> None:
        """Called once the server listens."""
        self._say(f"Serving {self.context.name} at {self.url} (Ctrl-C stops it)")

    def when_ready(self) -> None:
        """Called once the model is loaded."""
        self._say("The model is loaded.")

    def serve_until_stopped(self) -> None:
        """Serves until a signal comes.

        Raises:
            StoppedError: a signal came.
            AcornError: the model cannot be loaded.
        """
        asyncio.run(self.serve(sockets=[self.socket]))
        if self.failure is not None:
            raise self.failure
        if self._signals:
            raise StoppedError(self._signals[0], "The server has stopped.")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()

        def failed(error: BaseException) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._fail, error)

        self.context.scheduler = self._scheduler(
            self._load or self._load_model,
            self.context.runtime,
            slots=self.settings.slots,
            queue=self.context.limits.queue,
            deliver=delivery(loop),
            failed=failed,
            int8=self.settings.int8,
            note=self._say,
        )
        scheduler = self.context.scheduler
        self.context.metrics.watch(lambda: scheduler.waiting, lambda: scheduler.active, self.settings.slots)
        await super().startup(sockets)
        self.when_started()
        scheduler.start()

    async def on_tick(self, counter: int) -> bool:
        if not self._was_ready and self.context.is_ready:
            self._was_ready = True
            self.when_ready()
        if self._signals and self._drain_until is None:
            self._begin_draining()
        if self._drain_until is not None and (len(self._signals) > 1 or self._is_drained(self._drain_until)):
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.context.is_draining = True
        self.context.scheduler.stop(0)
        await super().shutdown(sockets)
        await asyncio.to_thread(self.context.scheduler.join, SECONDS_TO_FLUSH)

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Inside the block, signals to stop are noted; uvicorn's own would be raised again at its end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes a signal. A second one ends the server without waiting for what runs."""
        self._signals.append(sig)

    def _begin_draining(self) -> None:
        seconds = self.context.limits.drain_seconds
        self._say(f"Stopping: what runs may take {seconds:g} seconds more. Another signal ends it at once.")
        self.context.is_draining = True
        self._drain_until = time.monotonic() + seconds
        self.context.scheduler.stop(seconds)

    def _is_drained(self, until: float) -> bool:
        return self.context.answers == 0 or time.monotonic() >= until

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self.should_exit = True

    def _load_model(self) -> LoadedModel:
        """The model.

        Raises:
            AcornError: see `load`.
        """
        settings = self.settings
        loaded = load(settings.run, settings.checkpoint, self.context.runtime.device, progress=self._progress)
        if settings.int8:
            round_to_int8(loaded.model)
        return loaded


def model_name(run: Path | str) -> str:
    """The name of a model for clients: that of its folder, or of its repository."""
    text = str(run)
    if text.startswith("hf:"):
        return text.removeprefix("hf:")
    return Path(run).absolute().resolve().name or "model"


def read_key(path: Path) -> str:
    """The key in a file, without the white space around it.

    Raises:
        UsageError: the file cannot be read, or has no key that fits into a header.
    """
    try:
        key = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(
            f"The key cannot be read: {reason}.", where=str(path), fix="name a file that has the key alone"
        ) from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            "The file has no key: a key is one line of letters, digits and signs, without spaces.",
            where=str(path),
            fix="write a long random key into it, such as what `openssl rand -hex 32` prints",
        )
    return key


def log_to_stderr() -> None:
    """Writes the lines of requests, and of errors, to stderr. uvicorn's own say nothing beyond these."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("acorn.serve")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _check_access(settings: Settings) -> None:
    """Refuses a server that everyone in the network could use.

    Raises:
        UsageError
    """
    if settings.key is None and not is_loopback(settings.host):
        raise UsageError(
            f"Other machines could use a server at {settings.host} without a key.",
            where=f"--host {settings.host}",
            fix="name a file with a key: --api-key-file F; or serve this machine alone: --host 127.0.0.1",
        )


def _run_folder(run: Path | str) -> Path | None:
    """A run folder, which has checkpoints and metrics for the page to show; None: another model has none.

    Raises:
        UsageError: it does not exist, or is none of what can be loaded.
    """
    is_run = not str(run).startswith("hf:") and kind_of(Path(run)) == "run"
    return Path(run) if is_run else None


def _compared(settings: Settings) -> dict[str, Path]:
    """Name -> folder of what the page can compare with, beside the served run.

    Raises:
        UsageError: a folder is neither a run nor a model, or two have the same name.
    """
    served = Path(settings.run)
    found: dict[str, Path] = {}
    for folder in settings.compared:
        if (kind := kind_of(folder)) not in ("run", "model"):
            raise UsageError(
                f"{folder} is a {kind}.", where=f"--compare {folder}", fix="give a run, or its folder final/"
            )
        name = model_name(folder)
        known = {model_name(served): served, **found}
        if name in known and not folder.samefile(known[name]):
            raise UsageError(
                f"Two folders have the name {name}: {known[name]} and {folder}.",
                where=f"--compare {folder}",
                fix="rename one of them",
            )
        found[name] = folder
    return found


def _bound(settings: Settings) -> socket.socket:
    """A socket that listens at the address.

    Raises:
        UsageError: the address is in use, or is none of this machine's.
    """
    where = f"--host {settings.host} --port {settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
    except (OSError, UnicodeError):
        raise UsageError(
            f"There is no address {settings.host!r}.",
            where=where,
            fix="give an address of this machine: --host 127.0.0.1",
        ) from None
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows it would take the address from a program that uses it
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(socket.SOMAXCONN)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            what, fix = f"Another program uses the port {settings.port}.", "choose another with --port, or end it"
        elif error.errno in (errno.EACCES, errno.EPERM):
            what, fix = f"The port {settings.port} is not permitted.", "choose one above 1023 with --port"
        else:
            what, fix = f"The server cannot listen there: {error.strerror}.", "give an address of this machine"
        raise UsageError(what, where=where, fix=fix) from None
    bound.setblocking(False)
    return bound


def _connections(wanted: int) -> int:
    """How many connections the system allows, up to `wanted`."""
    try:
        import resource
    except ImportError:  # Windows
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + FILES_BESIDE_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - FILES_BESIDE_CONNECTIONS))


__all__: Sequence[str] = ("Server", "Settings", "log_to_stderr", "model_name", "read_key")
