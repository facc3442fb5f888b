"""POST /v1/classify: labels, values or tags of texts, from a finetuned model."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from starlette.requests import Request
from starlette.responses import Response

from acorn.checkpoint.load import LoadedModel
from acorn.errors import AcornError
from acorn.evaluate.predict import Prediction
from acorn.evaluate.predict import predict as labels_of
from acorn.evaluate.predict_tags import predict_tags
from acorn.runtime.device import Runtime
from acorn.serve.bodies import ignored_header, json_response, read
from acorn.serve.context import Context
from acorn.serve.limits import LIMITS
from acorn.serve.request_errors import bad, request_error
from acorn.serve.running import result_of
from acorn.serve.schemas import ClassifyRequest, ignored_fields


async def classify(request: Request, context: Context) -> Response:
    """A prediction for each text, in the form of `acorn predict --json`."""
    wanted = await read(request, ClassifyRequest, context.limits)
    context.check_model(wanted.model)
    loaded = context.classifier()
    _check(wanted.texts)
    try:
        found = await result_of(context, predictions(loaded, wanted.texts, context.runtime), request.receive)
    except AcornError as error:
        raise request_error(error, "input") from None
    results = [{"index": index, **one.record} for index, one in enumerate(found)]
    record = {"object": "list", "model": context.name, "task": loaded.task, "results": results}
    return json_response(record, headers=ignored_header(ignored_fields(wanted)))


def predictions(loaded: LoadedModel, texts: Sequence[str], runtime: Runtime) -> Generator[None, None, list[Prediction]]:
    """A task of the engine thread that predicts on one text at a time.

    Raises:
        InputError: a text cannot be encoded, or a sentence for tags is longer than the context.
        DamageError: the model's outputs are not finite.
    """
    found: list[Prediction] = []
    for number, text in enumerate(texts):
        if loaded.task == "tag":
            where = f"input[{number}]"
            found += predict_tags(loaded.model, loaded.word_text, loaded.labels, [text.split()], [where], runtime)
        else:
            found += labels_of(loaded.model, loaded.label_text, loaded.labels, [text], runtime)
        yield
    return found


def _check(texts: Sequence[str]) -> None:
    if not texts:
        raise bad("input is an empty list. Give at least one text.", "input", "invalid_value")
    if len(texts) > LIMITS.inputs:
        raise bad(
            f"input has {len(texts):,} texts; one request has at most {LIMITS.inputs}.", "input", "limit_exceeded"
        )
    for number, text in enumerate(texts):
        if not text.strip():
            raise bad(f"input[{number}] is empty. Give a text with words.", f"input[{number}]", "invalid_value")
