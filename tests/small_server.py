"""A server for tests of the playground: its own routes, and simple ones in place of completions, chat and labels."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from acorn.checkpoint.load import LoadedModel
from acorn.generate.settings import SamplingSettings
from acorn.runtime.device import Runtime
from acorn.serve.film import continued
from acorn.serve.playground import Context, routes
from acorn.serve.token_text import TokenTexts

RUNTIME = Runtime("cpu", "fp32", False, 1, True)


class ThreadScheduler:
    """Runs each task to its end in a thread, one after another.

    Attributes:
        refuse: raised instead of taking a task.
    """

    def __init__(self, loaded: LoadedModel, state: str = "ready") -> None:
        self.loaded, self.state, self.refuse = loaded, state, None
        self._thread = ThreadPoolExecutor(1)

    def run(self, task: Generator[None, None, Any]) -> Future[Any]:
        if self.refuse:
            raise self.refuse
        return self._thread.submit(finished, task)


def finished(task: Generator[None, None, Any]) -> Any:
    """The result of a task that is run to its end."""
    while True:
        try:
            next(task)
        except StopIteration as end:
            return end.value


def context_of(scheduler: ThreadScheduler, run: Path | None = None, *rest: Any, **more: Any) -> Context:
    return Context(lambda: scheduler, RUNTIME, run, *rest, **more)


def app_for(context: Context) -> Starlette:
    """The playground, with completions, chat and labels in their simplest form."""
    loaded = context.find_scheduler().loaded

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    def generated(ids: list[int], body: dict[str, Any]) -> list[Any]:
        settings = SamplingSettings(
            max_new_tokens=body["max_tokens"],
            seed=body["seed"],
            ignore_eos=True,
            **{name: body[name] for name in ("temperature", "top_k", "top_p", "min_p")},
        )
        return finished(continued(loaded, ids, settings, RUNTIME.autocast))

    async def completions(request: Request) -> Response:
        body = await request.json()
        pieces = TokenTexts(loaded.tokenizer)

        async def lines() -> Any:
            for score in generated(body["prompt"], body):
                text = pieces.text(score.id)
                logprobs = {"tokens": [text], "token_logprobs": [score.logprob]}
                choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": None}
                if body.get("return_token_ids"):
                    choice["token_ids"] = [score.id]
                yield f"data: {json.dumps({'choices': [choice]})}\n\n"
            yield f"data: {json.dumps({'choices': [{'index': 0, 'text': '', 'finish_reason': 'length'}]})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def chat(request: Request) -> Response:
        said = (await request.json())["messages"][-1]["content"]

        async def lines() -> Any:
            for word in ("You ", "said: ", said):
                yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': word}}]})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def classify(request: Request) -> Response:
        texts = (await request.json())["input"]
        return JSONResponse(
            {"results": [{"text": t, "label": "good", "probabilities": {"bad": 0.2, "good": 0.8}} for t in texts]}
        )

    others = [
        Route("/v1/models", models),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/classify", classify, methods=["POST"]),
    ]
    return Starlette(routes=[*routes(context), *others])


@contextlib.contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """The address of a server on this machine, in a thread."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
