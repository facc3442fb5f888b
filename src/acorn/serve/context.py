"""What the routes of a server share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.model_chat import chat_format
from acorn.runtime.device import Runtime
from acorn.serve.limits import LIMITS, Limits
from acorn.serve.metrics import Metrics
from acorn.serve.request_errors import RequestError, bad
from acorn.serve.scheduler import NotReadyError, Scheduler
from acorn.serve.token_text import TokenTexts
from acorn.tokenizer.template_format import AnyChatFormat
from acorn.tokenizer.tokenizer import Tokenizer


@dataclass
class Context:
    """The state of a server. Lives in the event loop.

    Attributes:
        name: of the model, as clients call it.
        scheduler: set before the first request.
        needs_key: clients need a key.
        run: the folder of the served run; None: the model is not that of a run folder.
        compared: name -> run or model folder that the page can compare with.
        int8: matrices are rounded to int8, in these models too.
        is_draining: nothing new is taken.
        answers: requests that wait for the engine now.
    """

    name: str
    runtime: Runtime
    slots: int
    limits: Limits = LIMITS
    metrics: Metrics = field(default_factory=Metrics)
    created: int = field(default_factory=lambda: int(time.time()))
    needs_key: bool = False
    run: Path | None = None
    compared: Mapping[str, Path] = field(default_factory=dict)
    int8: bool = False
    is_draining: bool = False
    answers: int = 0
    scheduler: Scheduler = field(init=False)

    @property
    def is_ready(self) -> bool:
        return not self.is_draining and self.scheduler.state == "ready"

    def loaded(self) -> LoadedModel:
        """The model.

        Raises:
            NotReadyError: it is being loaded, or the server stops.
        """
        if not self.is_ready:
            raise NotReadyError
        return self.scheduler.loaded

    def language_model(self) -> LoadedModel:
        """The model, which continues text.

        Raises:
            NotReadyError: it is being loaded, or the server stops.
            RequestError: 400: it has a label head.
        """
        loaded = self.loaded()
        if loaded.model.head_spec is not None:
            raise bad(
                "The model gives labels, values or tags; it does not continue text. Use /v1/classify.",
                "model",
                "wrong_model_kind",
            )
        return loaded

    def classifier(self) -> LoadedModel:
        """The model, which has a label head.

        Raises:
            NotReadyError: it is being loaded, or the server stops.
            RequestError: 400: it continues text.
        """
        loaded = self.loaded()
        if loaded.model.head_spec is None:
            route = "/v1/chat/completions" if loaded.chat_template else "/v1/completions"
            raise bad(
                f"The model continues text; it gives no labels, values or tags. Use {route}.",
                "model",
                "wrong_model_kind",
            )
        return loaded

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Counts a request that waits for the engine."""
        self.answers += 1
        try:
            yield
        finally:
            self.answers -= 1

    @cached_property
    def token_texts(self) -> TokenTexts:
        return TokenTexts(self.tokenizer)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.loaded().tokenizer

    def chat(self) -> AnyChatFormat:
        """The format of the model's conversations.

        Raises:
            NotReadyError: it is being loaded, or the server stops.
            RequestError: 400: the model has no chat template.
        """
        self.language_model()
        found = self._chat
        if found is None:
            raise bad(
                "The model has no chat template. Use /v1/completions, which continues text.",
                "model",
                "no_chat_template",
            )
        return found

    @cached_property
    def _chat(self) -> AnyChatFormat | None:
        return chat_format(self.loaded())

    def check_model(self, name: str | None) -> None:
        """Refuses a request for another model.

        Raises:
            RequestError: 404
        """
        if name is not None and name != self.name:
            raise RequestError(
                404, f"There is no model {name[:100]!r} here; the model is {self.name!r}.", "model", "model_not_found"
            )
