"""The playground's page, and the routes that only it needs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from acorn.checkpoint.load import LoadedModel
from acorn.errors import AcornError, InputError, UsageError, shown
from acorn.generate.settings import SamplingSettings
from acorn.run_folder import RunFolder
from acorn.runtime.device import Runtime
from acorn.serve.film import Frames, compared, frame_of
from acorn.serve.inspect import Task, inspect_document, inspect_ids
from acorn.serve.lens import lens_of
from acorn.serve.other_models import OtherModels
from acorn.serve.scheduler import NotReadyError, QueueFullError, Scheduler
from acorn.serve.watch import run_events, run_facts

Result = TypeVar("Result")
Handler = Callable[["Playground", Request], Awaitable[Response]]

POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
RETRY_SECONDS = 2
SECONDS_BETWEEN_DISCONNECT_CHECKS = 0.25


class ClientGoneError(Exception):
    """The client closed the connection."""


@dataclass(frozen=True)
class Context:
    """What the page's routes need.

    Attributes:
        find_scheduler: the server's scheduler, which is made after the routes.
        run: the folder of the served run; None: the model is not that of a run folder.
        others: name -> folder of other runs that may be compared with. A request names them.
        int8: matrices are rounded to int8, in other models too.
        max_tokens: largest number of tokens of a text that is inspected.
        max_scores: largest number of alternatives in an answer, over all tokens.
        max_new_tokens: largest number of tokens of a continuation in a film or a comparison.
        watchers: largest number of pages that follow a run at a time.
    """

    find_scheduler: Callable[[], Scheduler]
    runtime: Runtime
    run: Path | None = None
    others: Mapping[str, Path] = field(default_factory=dict)
    int8: bool = False
    max_tokens: int = 16_384
    max_scores: int = 100_000
    max_new_tokens: int = 256
    watchers: int = 32


def routes(context: Context) -> list[Route]:
    """The routes of the page."""
    page = Playground(context)
    files = page_files()
    found = [
        Route("/v1/inspect", page.answering(Playground.inspect), methods=["POST"]),
        Route("/v1/lens", page.answering(Playground.lens), methods=["POST"]),
        Route("/v1/compare", page.answering(Playground.compare), methods=["POST"]),
        Route("/v1/film", page.answering(Playground.film), methods=["POST"]),
        Route("/v1/run", page.answering(Playground.facts), methods=["GET"]),
        Route("/v1/run/events", page.answering(Playground.events), methods=["GET"]),
        Route("/", _file(files["index.html"], "index.html"), methods=["GET"]),
    ]
    return found + [Route(f"/page/{name}", _file(body, name), methods=["GET"]) for name, body in files.items()]


def page_files() -> dict[str, bytes]:
    """Name -> content of every file of the page. Only these are served."""
    folder = resources.files("acorn.serve") / "page"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if Path(entry.name).suffix in MEDIA_TYPES}


def _file(body: bytes, name: str) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",  # the browser asks again, and gets 304
        "etag": tag,
    }

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=MEDIA_TYPES[Path(name).suffix])

    return answer


class Playground:
    """The handlers; each takes a request and returns a response, or raises an error that `answering` turns into one."""

    def __init__(self, context: Context) -> None:
        self.context = context
        runs = dict(context.others)
        if context.run is not None:
            runs = {context.run.absolute().name: context.run} | runs
        self.others = OtherModels(runs, context.runtime.device, int8=context.int8)
        self.frames, self.watching = Frames(), 0

    @property
    def scheduler(self) -> Scheduler:
        return self.context.find_scheduler()

    def answering(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return await handler(self, request)
            except ClientGoneError:
                return Response(status_code=499)  # nobody reads it
            except NotReadyError:
                return refusal(503, "The model is being loaded, or the server stops. Try again in a moment.")
            except QueueFullError:
                return refusal(429, "The server is busy: its queue is full. Try again in a moment.")
            except (UsageError, InputError) as error:
                return refusal(400, f"{error.what} Fix: {error.fix}." if error.fix else error.what, error.where)
            except AcornError as error:
                return refusal(500, f"{error.what} Fix: {error.fix}." if error.fix else error.what, error.where)

        return answer

    async def inspect(self, request: Request) -> Response:
        """POST /v1/inspect: how well the model predicts each token, and what it expects next."""
        body = await body_of(request)
        loaded = await self._model(body)
        top, next_top = _whole(body, "top", 0, 0, 20), _whole(body, "next_top", 0, 0, 500)
        given, kind = body.get("input", ""), body.get("as", "document")
        if kind not in ("document", "prompt"):
            raise UsageError(f"as cannot be {shown(kind)}.", where="as", fix='give "document" or "prompt"')
        task: Task[Any]
        if isinstance(given, str) and kind == "document":
            self._check_length(len(loaded.tokenizer.encode_prompt(given)), top)
            task = inspect_document(loaded, _text(given), self.context.runtime, top=top, next_top=next_top)
        else:
            ids = self._ids(given, loaded)
            self._check_length(len(ids), top)
            task = inspect_ids(loaded, ids, self.context.runtime, top=top, next_top=next_top)
        return answer_of(await self._in_engine(request, task))

    async def lens(self, request: Request) -> Response:
        """POST /v1/lens: what the model would say after each layer, and what each head attends to."""
        body = await body_of(request)
        loaded = await self._model(body)
        ids = self._ids(body.get("input", ""), loaded)
        top = _whole(body, "top", 5, 1, 20)
        return answer_of(await self._in_engine(request, lens_of(loaded, ids, self.context.runtime, top)))

    async def compare(self, request: Request) -> Response:
        """POST /v1/compare: two models on the same prompt and seed."""
        body = await body_of(request)
        left, right = [await self._side(body, name) for name in ("left", "right")]
        settings = self._settings(body)
        prompt = _text(body.get("prompt", ""))
        self._check_length(len(left.tokenizer.encode_prompt(prompt)), 5)
        return answer_of(await self._in_engine(request, compared(left, right, prompt, settings, self.context.runtime)))

    async def film(self, request: Request) -> Response:
        """POST /v1/film: one prompt under every checkpoint, as a stream of frames."""
        body = await body_of(request)
        run = self._own_run()
        prompt = _text(body.get("prompt", ""))
        new_tokens = _whole(body, "max_tokens", 24, 0, 64)
        self._check_length(len(self._served().tokenizer.encode_prompt(prompt)), 5)
        found = await run_in_threadpool(self.others.checkpoints, run)
        # The final model is that of the last checkpoint, so it is a frame only where no checkpoint was kept.
        steps = [name for name in found if name != "final"] or found
        if not steps:
            raise UsageError("The run has no checkpoint yet.", where="run", fix="wait until it has saved one")
        return stream_of(self._frames_of(request, run, steps, prompt, new_tokens))

    async def _frames_of(
        self, request: Request, run: str, steps: list[str], prompt: str, new_tokens: int
    ) -> AsyncIterator[tuple[str, Any]]:
        yield "checkpoints", steps
        for step in steps:
            key = (run, step, self.others.version(run, step), prompt, new_tokens)
            frame = self.frames.get(key)
            try:
                if frame is None:
                    loaded = await self.others.get(run, step)
                    ids = self._ids(prompt, loaded)
                    frame = await self._in_engine(request, frame_of(loaded, ids, self.context.runtime, new_tokens))
                    self.frames.add(key, frame)
            except ClientGoneError:
                return
            except (NotReadyError, QueueFullError):
                yield "error", "The server is busy or stops, so the film ends here. Try again in a moment."
                return
            except AcornError as error:  # removed by the training meanwhile, or damaged
                yield "skipped", {"checkpoint": step, "reason": error.what}
                continue
            yield "frame", {"checkpoint": step, **frame}
        yield "done", {}

    async def facts(self, request: Request) -> Response:
        """GET /v1/run: the model, and what is known of its run."""
        loaded = self._served()
        found: dict[str, Any] = {
            "model": {
                "task": loaded.task,
                "labels": list(loaded.labels),
                "has_chat": bool(loaded.chat_template),
                "block_size": loaded.config.block_size,
                "vocab_size": loaded.config.vocab_size,
                "n_layer": loaded.config.n_layer,
                "n_head": loaded.config.heads,
                "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
                "separator_id": loaded.tokenizer.separator_id,
                "folder": str(loaded.folder),
                "step": loaded.step,
            },
            "run": None,
            "runs": {},
        }
        if self.context.run is not None:
            found["run"] = await run_in_threadpool(run_facts, RunFolder(self.context.run))
        for name in self.others.runs:
            found["runs"][name] = await run_in_threadpool(self.others.checkpoints, name)
        return answer_of(found)

    async def events(self, request: Request) -> Response:
        """GET /v1/run/events: what is new in the run's folder, as it is training."""
        folder = self.others.folder(self._own_run())
        metrics, samples = _offset(request, "metrics"), _offset(request, "samples")
        if self.watching >= self.context.watchers:
            return refusal(429, f"{self.watching} pages follow this run already. Close one of them.")

        async def watched() -> AsyncIterator[tuple[str, Any]]:
            self.watching += 1
            try:
                async for event in run_events(folder, metrics, samples, self._is_stopping):
                    yield event
            finally:
                self.watching -= 1

        return stream_of(watched())

    def _is_stopping(self) -> bool:
        return self.scheduler.state in ("draining", "stopped")

    def _served(self) -> LoadedModel:
        if self.scheduler.state != "ready":
            raise NotReadyError
        return self.scheduler.loaded

    async def _model(self, body: dict[str, Any]) -> LoadedModel:
        """The served model, or the checkpoint that the request names."""
        served = self._served()
        checkpoint = body.get("checkpoint")
        if checkpoint is not None:
            return await self.others.get(self._own_run(), str(checkpoint))
        served.require_language_model("it does not predict text", "use /v1/classify")
        return served

    async def _side(self, body: dict[str, Any], name: str) -> LoadedModel:
        """One of the two models of a comparison."""
        side = body.get(name)
        if not isinstance(side, dict):
            raise UsageError(
                f"{name} cannot be {shown(side)}.", where=name, fix='give {"run": a name, "checkpoint": a step}'
            )
        self._served()
        run = side.get("run")
        return await self.others.get(self._own_run() if run is None else str(run), str(side.get("checkpoint", "final")))

    def _own_run(self) -> str:
        if self.context.run is None:
            raise UsageError(
                "The served model is not that of a run folder, so there are no checkpoints to look at.",
                where="run",
                fix="start the server with a run folder",
            )
        return self.context.run.absolute().name

    def _settings(self, body: dict[str, Any]) -> SamplingSettings:
        """Sampling settings of a request.

        Raises:
            UsageError: one of them is out of range.
        """
        names = ("temperature", "top_k", "top_p", "min_p")
        given = {name: body[name] for name in names if body.get(name) is not None}
        seed = body.get("seed")
        return SamplingSettings(
            max_new_tokens=_whole(body, "max_tokens", 64, 1, self.context.max_new_tokens),
            seed=0 if seed is None else seed,
            **given,
        )

    def _ids(self, given: Any, loaded: LoadedModel) -> list[int]:
        """The ids of a prompt: of a text, or as given.

        Raises:
            UsageError: it is neither.
        """
        if isinstance(given, str):
            return loaded.tokenizer.encode_prompt(given) or list(loaded.tokenizer.document_start)
        most = loaded.config.vocab_size
        if not isinstance(given, list) or not given or not all(type(n) is int and 0 <= n < most for n in given):
            raise UsageError(
                f"input cannot be {shown(given)}.",
                where="input",
                fix=f"give a text, or a list of token ids from 0 to {most - 1:,}",
            )
        return given

    def _check_length(self, tokens: int, top: int) -> None:
        """Raises:
        UsageError: the text, or the answer, would be too long.
        """
        most = min(self.context.max_tokens, self.context.max_scores // (top + 1))
        if tokens > most:
            raise UsageError(
                f"The text has {tokens:,} tokens; with {top} alternatives a token, {most:,} are read at a time.",
                where="input",
                fix="shorten it" if not top else "shorten it, or ask for fewer alternatives (top)",
            )

    async def _in_engine(self, request: Request, task: Task[Result]) -> Result:
        """Runs a task between the turns of the engine, and ends it if the client goes away.

        Raises:
            NotReadyError, QueueFullError: the engine does not take it.
            ClientGoneError: nobody waits for the result.
        """
        future = asyncio.wrap_future(self.scheduler.run(task))
        try:
            while not future.done():
                await asyncio.wait({future}, timeout=SECONDS_BETWEEN_DISCONNECT_CHECKS)
                if not future.done() and await request.is_disconnected():
                    raise ClientGoneError
        finally:
            if not future.done():
                future.cancel()
        return future.result()


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        UsageError: the body is none.
    """
    try:
        body = json.loads(await request.body(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise UsageError("The body is not a JSON object.", where="body", fix='send JSON such as {"input": "Once"}')
    return body


def _no_constant(name: str) -> None:
    """NaN and infinities are no JSON."""
    raise ValueError(name)


def _text(given: Any) -> str:
    """A text of a request.

    Raises:
        UsageError: it is none, or holds half a character.
    """
    if not isinstance(given, str):
        raise UsageError(f"A text cannot be {shown(given)}.", where="input", fix="give a string")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise UsageError(
            "The text contains a lone surrogate, which is not a character.", where="input", fix="use valid Unicode"
        ) from None
    return given


def _whole(body: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    """A whole number of a request; null is absent.

    Raises:
        UsageError: it is none, or out of range.
    """
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or not least <= value <= most:
        raise UsageError(
            f"{name} cannot be {shown(value)}.", where=name, fix=f"give a whole number from {least} to {most}"
        )
    return value


def _offset(request: Request, name: str) -> int:
    value = request.query_params.get(name, "0")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 16 else 0


def answer_of(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response, all in ASCII: samples may hold half a character, which has no UTF-8."""
    return Response(encoded(value), status, headers, "application/json")


def encoded(value: Any) -> str:
    return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    """`value` with null for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def refusal(status: int, message: str, param: str = "") -> Response:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if status < 429 else "server_error"
    headers = {"retry-after": str(RETRY_SECONDS)} if status in (429, 503) else {}
    body = {"error": {"message": message, "type": kind, "param": param or None, "code": None}}
    return answer_of(body, status, headers)


def stream_of(events: AsyncIterator[tuple[str, Any]]) -> Response:
    """Server-sent events; `quiet` becomes a comment."""

    async def lines() -> AsyncIterator[str]:
        async for name, data in events:
            yield ": quiet\n\n" if name == "quiet" else f"event: {name}\ndata: {encoded(data)}\n\n"

    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(lines(), headers=headers, media_type="text/event-stream")
