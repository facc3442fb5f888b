"""The routes that only the playground's page needs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive

from acorn.checkpoint.load import LoadedModel
from acorn.errors import AcornError, InputError, UsageError
from acorn.generate.settings import SamplingSettings
from acorn.run_folder import RunFolder
from acorn.serve.bodies import ignored_header, json_response, read
from acorn.serve.context import Context
from acorn.serve.event_stream import EventStream
from acorn.serve.film import ALTERNATIVES, Frames, compared, frame_of
from acorn.serve.inspect import Task, inspect_document, inspect_ids
from acorn.serve.lens import lens_of
from acorn.serve.mailbox import ClientGoneError
from acorn.serve.other_models import OtherModels
from acorn.serve.page_schemas import CompareRequest, FilmRequest, InspectRequest, LensRequest, Side
from acorn.serve.request_errors import bad, request_error, retry_later
from acorn.serve.running import Result, result_of, watched
from acorn.serve.schemas import ignored_fields
from acorn.serve.watch import run_events, run_facts


class Playground:
    """The handlers of these routes, and what they share: other models, frames of films, and pages that follow a run."""

    def __init__(self, context: Context) -> None:
        self.context, self.limits = context, context.limits
        runs = dict(context.compared)
        if context.run is not None:
            runs = {context.name: context.run} | runs
        self.others = OtherModels(runs, context.runtime.device, int8=context.int8)
        self.frames, self.watching = Frames(), 0

    async def inspect(self, request: Request) -> Response:
        """POST /v1/inspect: how well the model predicts each token, and what it expects next."""
        wanted = await read(request, InspectRequest, self.limits)
        loaded = await self._model(wanted.checkpoint)
        how = {"top": wanted.top, "next_top": wanted.next_top}
        ids = await asyncio.to_thread(_ids, wanted.input, loaded, "input")
        self._check_length(ids, wanted.top, "input")
        task: Task[Any]
        if isinstance(wanted.input, str) and wanted.kind == "document":
            if not wanted.input:
                raise bad("input is empty, so there is nothing to score. Give a text.", "input", "invalid_value")
            task = inspect_document(loaded, wanted.input, self.context.runtime, **how)
        else:
            task = inspect_ids(loaded, ids, self.context.runtime, **how)
        found = await self._result(task, request, "input")
        return json_response(found, headers=ignored_header(ignored_fields(wanted)))

    async def lens(self, request: Request) -> Response:
        """POST /v1/lens: what the model would say after each layer, and what each head attends to."""
        wanted = await read(request, LensRequest, self.limits)
        loaded = await self._model(wanted.checkpoint)
        ids = await asyncio.to_thread(_ids, wanted.input, loaded, "input")
        most = min(self.limits.lens_tokens, loaded.config.block_size)
        if len(ids) > most:
            raise bad(f"The text has {len(ids):,} tokens; at most {most} are looked into.", "input", "limit_exceeded")
        found = await self._result(lens_of(loaded, ids, self.context.runtime, wanted.top), request, "input")
        return json_response(found, headers=ignored_header(ignored_fields(wanted)))

    async def compare(self, request: Request) -> Response:
        """POST /v1/compare: two models on the same prompt and seed."""
        wanted = await read(request, CompareRequest, self.limits)
        left, right = [await self._side(side, name) for side, name in ((wanted.left, "left"), (wanted.right, "right"))]
        for loaded in (left, right):
            self._check_length(await asyncio.to_thread(_ids, wanted.prompt, loaded, "prompt"), ALTERNATIVES, "prompt")
        settings = SamplingSettings(
            max_new_tokens=wanted.max_tokens,
            temperature=wanted.temperature,
            top_k=wanted.top_k,
            top_p=wanted.top_p,
            min_p=wanted.min_p,
            seed=wanted.seed,
        )
        task = compared(left, right, wanted.prompt, settings, self.context.runtime)
        found = await self._result(task, request, "prompt")
        return json_response(found, headers=ignored_header(ignored_fields(wanted)))

    async def film(self, request: Request) -> ASGIApp:
        """POST /v1/film: one prompt under every checkpoint, as a stream of frames."""
        wanted = await read(request, FilmRequest, self.limits)
        loaded, run = self.context.language_model(), self._own_run()
        self._check_length(await asyncio.to_thread(_ids, wanted.prompt, loaded, "prompt"), ALTERNATIVES, "prompt")
        found = await run_in_threadpool(self.others.checkpoints, run)
        # The final model is that of the last checkpoint, so it is a frame only where no checkpoint was kept.
        steps = [name for name in found if name != "final"] or found
        if not steps:
            raise bad("The run has no checkpoint yet. Wait until it has saved one.", None, "no_checkpoint")
        return EventStream(
            lambda receive: self._frames(receive, run, steps, wanted), ignored_header(ignored_fields(wanted))
        )

    async def _frames(
        self, receive: Receive, run: str, steps: list[str], wanted: FilmRequest
    ) -> AsyncGenerator[dict[str, Any], None]:
        yield {"checkpoints": steps}
        for step in steps:
            key = (run, step, self.others.version(run, step), wanted.prompt, wanted.max_tokens)
            frame = self.frames.get(key)
            try:
                if frame is None:
                    loaded = await self.others.get(run, step)
                    ids = await asyncio.to_thread(_ids, wanted.prompt, loaded, "prompt")
                    task = frame_of(loaded, ids, self.context.runtime, wanted.max_tokens)
                    frame = await result_of(self.context, task, receive)
                    self.frames.add(key, frame)
            except AcornError as error:  # removed by the training meanwhile, or damaged
                yield {"skipped": {"checkpoint": step, "reason": error.what}}
                continue
            yield {"frame": {"checkpoint": step, **frame}}

    async def facts(self, request: Request) -> Response:
        """GET /v1/run: the model, and what is known of its run."""
        loaded = self.context.loaded()
        model = {
            "task": loaded.task,
            "labels": list(loaded.labels),
            "has_chat": bool(loaded.chat_template),
            "block_size": loaded.config.block_size,
            "vocab_size": loaded.config.vocab_size,
            "n_layer": loaded.config.n_layer,
            "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
            "folder": str(loaded.folder),
            "step": loaded.step,
        }
        run = self.context.run
        return json_response(
            {
                "model": model,
                "run": None if run is None else await run_in_threadpool(run_facts, RunFolder(run)),
                "runs": {name: await run_in_threadpool(self.others.checkpoints, name) for name in self.others.runs},
            }
        )

    async def events(self, request: Request) -> ASGIApp:
        """GET /v1/run/events: what is new in the run's folder, as it is training."""
        folder = self.others.folder(self._own_run())
        metrics, samples = _offset(request, "metrics"), _offset(request, "samples")
        if self.context.is_draining:
            raise retry_later(503, "The server is stopping.", "not_ready")
        if self.watching >= self.limits.watchers:
            message = f"{self.watching} pages follow this run already. Close one of them."
            raise retry_later(429, message, "too_many_watchers")
        return EventStream(lambda receive: self._news(receive, folder, metrics, samples), {})

    async def _news(
        self, receive: Receive, folder: RunFolder, metrics: int, samples: int
    ) -> AsyncGenerator[dict[str, Any], None]:
        gone = asyncio.Event()

        async def pause(seconds: float) -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), seconds)

        def is_over() -> bool:
            return gone.is_set() or self.context.is_draining

        self.watching += 1
        try:
            async with watched(receive, gone.set):
                async for news in run_events(folder, metrics, samples, is_over, pause):
                    yield news
        finally:
            self.watching -= 1
        if gone.is_set():
            raise ClientGoneError

    async def _model(self, checkpoint: str | None) -> LoadedModel:
        """The served model, or the checkpoint of its run.

        Raises:
            NotReadyError, RequestError
        """
        served = self.context.language_model()
        return served if checkpoint is None else await self._other(self._own_run(), checkpoint, "checkpoint")

    async def _side(self, side: Side, name: str) -> LoadedModel:
        """One of the two models of a comparison."""
        self.context.language_model()
        run = self._own_run() if side.run is None else side.run
        if run not in self.others.runs:
            known = ", ".join(self.others.runs) or "none"
            raise bad(f"There is no run of this name here. The runs are: {known}.", f"{name}.run", "invalid_value")
        return await self._other(run, side.checkpoint, f"{name}.checkpoint")

    async def _other(self, run: str, checkpoint: str, param: str) -> LoadedModel:
        try:
            return await self.others.get(run, checkpoint)
        except AcornError as error:
            raise request_error(error, param) from None

    def _own_run(self) -> str:
        if self.context.run is None:
            raise bad(
                "The served model is not that of a run folder, so it has no checkpoints. Start the server with a run.",
                None,
                "no_run",
            )
        return self.context.name

    def _check_length(self, ids: Sequence[int], top: int, param: str) -> None:
        """Raises:
        RequestError: 400: the text, or the answer, would be too long.
        """
        most = min(self.limits.inspected_tokens, self.limits.inspected_scores // (top + 1))
        if len(ids) > most:
            message = f"The text has {len(ids):,} tokens; with {top} alternatives a token, at most {most:,} are read."
            raise bad(f"{message} Shorten it.", param, "limit_exceeded")

    async def _result(self, task: Task[Result], request: Request, param: str) -> Result:
        try:
            return await result_of(self.context, task, request.receive)
        except AcornError as error:
            raise request_error(error, param) from None


def _ids(given: str | list[int], loaded: LoadedModel, param: str) -> list[int]:
    """The ids of a prompt; a document's beginning, if it is empty.

    Raises:
        RequestError: 400: the text cannot be encoded, or an id is not in the vocabulary.
    """
    if isinstance(given, str):
        try:
            return loaded.tokenizer.encode_prompt(given) or [loaded.tokenizer.separator_id]
        except (UsageError, InputError) as error:
            raise request_error(error, param) from None
    size = loaded.config.vocab_size
    if unknown := [token for token in given if token >= size]:
        message = f"{param} has the token {unknown[0]:,}; the vocabulary has the ids 0 to {size - 1:,}."
        raise bad(message, param, "invalid_value")
    return given


def _offset(request: Request, name: str) -> int:
    """Bytes of a file that a page has read.

    Raises:
        RequestError: 400
    """
    value = request.query_params.get(name, "0")
    if not (value.isascii() and value.isdecimal() and len(value) < 16):
        raise bad(f"{name} should be a number of bytes.", name, "invalid_value")
    return int(value)
