"""The OpenAPI description of the interface, from the schemas of the requests and the table of limits."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from acorn import __version__
from acorn.serve.context import Context
from acorn.serve.event_stream import MEDIA_TYPE as EVENTS
from acorn.serve.limits import table
from acorn.serve.page_schemas import CompareRequest, FilmRequest, InspectRequest, LensRequest
from acorn.serve.schemas import (
    Body,
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)

REQUESTS: dict[str, tuple[type[Body], str]] = {
    "/v1/completions": (CompletionRequest, "Continue prompts."),
    "/v1/chat/completions": (ChatRequest, "Answer a conversation."),
    "/v1/tokenize": (TokenizeRequest, "The token ids of a text."),
    "/v1/detokenize": (DetokenizeRequest, "The text of token ids."),
    "/v1/classify": (ClassifyRequest, "Labels, values or tags of texts."),
    "/v1/inspect": (InspectRequest, "How well the model predicts each token of a text, and what it expects next."),
    "/v1/lens": (LensRequest, "What the model would say after each layer, and what each head attends to."),
    "/v1/compare": (CompareRequest, "Two models on the same prompt and seed."),
    "/v1/film": (FilmRequest, "One prompt under every checkpoint of the run."),
}
"""Route -> its request, and what it does."""

NEED_LANGUAGE_MODEL = REQUESTS.keys() - {"/v1/tokenize", "/v1/detokenize", "/v1/classify"}
"""Routes that a model with a label head does not have."""

GETS = {
    "/v1/models": "The model.",
    "/v1/models/{name}": "The model with this name.",
    "/v1/run": "The model and its run.",
    "/v1/run/events": "What is new in the run's folder, until the client closes the connection.",
    "/health": "Whether the process answers; needs no key.",
    "/ready": "Whether requests are taken; needs no key.",
    "/metrics": "Figures for Prometheus.",
    "/openapi.json": "This description.",
}

ERRORS = {
    "400": "the body is not valid, or a limit is exceeded",
    "401": "the key is missing or wrong",
    "403": "a foreign Host or Origin",
    "404": "no such route or model",
    "405": "no such method",
    "408": "the request was not complete in time",
    "413": "the body is too long",
    "415": "the media type is not application/json",
    "429": "the queue is full",
    "431": "the headers are too long",
    "500": "the server failed",
    "503": "the model is being loaded, or the server stops",
}


def description(context: Context) -> dict[str, Any]:
    """The description of a server."""
    kinds = dict.fromkeys(kind for kind, _ in REQUESTS.values())
    _, definitions = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template="#/components/schemas/{model}"
    )
    schemas = {name: _with_nulls(schema) for name, schema in definitions["$defs"].items()}
    schemas["Error"] = _ERROR
    missing = _missing(context)
    limits = "\n".join(f"- {row.what}: {row.value}; beyond: {row.beyond}" for row in table(context.limits))
    security: list[Any] = [{"bearer": []}, {"basic": []}] if context.needs_key else []
    return {
        "openapi": "3.1.0",
        "info": {"title": "acorn serve", "version": __version__, "description": f"Limits:\n\n{limits}\n"},
        "paths": {
            **{
                path: {"post": _post(kind, summary, security)}
                for path, (kind, summary) in REQUESTS.items()
                if path not in missing
            },
            **{path: {"get": _get(path, summary, security)} for path, summary in GETS.items() if path not in missing},
        },
        "components": {
            "schemas": schemas,
            "responses": {
                status: {
                    "description": what,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for status, what in ERRORS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _missing(context: Context) -> set[str]:
    """Routes that the model does not have; none as long as it is not loaded."""
    missing = set() if context.run else {"/v1/film", "/v1/run/events"}
    if not context.is_ready:
        return missing
    loaded = context.loaded()
    if loaded.model.head_spec is not None:
        return missing | NEED_LANGUAGE_MODEL
    return missing | ({"/v1/classify"} if loaded.chat_template else {"/v1/classify", "/v1/chat/completions"})


_EVENT = {"schema": {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}}

_OFFSET = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _post(kind: type[Body], summary: str, security: list[Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if "stream" in kind.model_fields:
        content[EVENTS] = _EVENT
    if kind is FilmRequest:
        content = {EVENTS: _EVENT}
    return {
        "summary": summary,
        "security": security,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}},
        },
        "responses": {"200": {"description": "the answer", "content": content}, **_errors(*ERRORS)},
    }


def _get(path: str, summary: str, security: list[Any]) -> dict[str, Any]:
    media_type = {"/metrics": "text/plain", "/v1/run/events": EVENTS}.get(path, "application/json")
    schema = {"type": "string" if path == "/metrics" else "object"}
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "the answer", "content": {media_type: {"schema": schema}}},
            **_errors("400", "401", "403", "404", "405", "408", "413", "429", "431", "500", "503"),
        },
    }
    if path not in ("/health", "/ready"):
        found["security"] = security
    if "{name}" in path:
        found["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    if path == "/v1/run/events":
        found["parameters"] = [
            {"name": name, "in": "query", "description": f"bytes read of {name}.jsonl", "schema": _OFFSET}
            for name in ("metrics", "samples")
        ]
    return found


def _with_nulls(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose optional fields may be null, which is the same as absent."""
    required = schema.get("required", [])
    properties = {
        name: field if name in required or _takes_null(field) else {"anyOf": [field, {"type": "null"}]}
        for name, field in schema.get("properties", {}).items()
    }
    return {**schema, "properties": properties, "additionalProperties": True}


def _takes_null(field: dict[str, Any]) -> bool:
    return {"type": "null"} in field.get("anyOf", [])
