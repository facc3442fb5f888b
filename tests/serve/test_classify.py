"""Label heads over HTTP: the same as acorn predict gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_models import LINES, classifier_for
from tiny_servers import Running, serving

from acorn.checkpoint.load import LoadedModel
from acorn.evaluate.predict import predict
from acorn.evaluate.predict_tags import predict_tags
from acorn.model.label_head import HeadSpec
from acorn.runtime.choose import runtime_for_inference
from acorn.serve.scheduler import Scheduler
from acorn.tokenizer.training import train

TEXTS = ["The old oak stood.", "An acorn fell; the squirrel slept."]
TASKS = {"class": "classify", "labels": "classify", "value": "regress", "tag": "tag"}
RUNTIME = runtime_for_inference("cpu", "fp32")


def classifier(kind: str) -> LoadedModel:
    tokenizer = train(lambda: LINES, "bpe", 300)
    labels = () if kind == "value" else ("x", "y", "z")
    model = classifier_for(tokenizer, HeadSpec(kind, len(labels) or 1), n_layer=1, block_size=32)
    return LoadedModel(model, tokenizer, model.config, Path("nowhere"), 7, task=TASKS[kind], labels=labels)


def classify(running: Running, text: object, **more: object) -> tuple[int, dict]:
    status, _, body = running.request("POST", "/v1/classify", {"input": text, **more})
    return status, json.loads(body)


@pytest.mark.parametrize("kind", TASKS)
def test_predictions_are_those_of_acorn_predict(kind: str) -> None:
    loaded = classifier(kind)
    if kind == "tag":
        sentences = [text.split() for text in TEXTS]
        expected = predict_tags(loaded.model, loaded.word_text, loaded.labels, sentences, TEXTS, RUNTIME)
    else:
        expected = predict(loaded.model, loaded.label_text, loaded.labels, TEXTS, RUNTIME)
    with serving(loaded, scheduler=Scheduler) as running:
        status, found = classify(running, TEXTS)
        assert status == 200
        assert found["task"] == TASKS[kind]
        for number, (result, one) in enumerate(zip(found["results"], expected, strict=True)):
            assert result.pop("index") == number
            assert result.keys() == one.record.keys()
            for name, value in one.record.items():
                exact = name in ("text", "label", "tokens", "tags")
                assert result[name] == (value if exact else pytest.approx(value, abs=1e-5))
        assert classify(running, TEXTS[0])[1]["results"] == [{**found["results"][0], "index": 0}]
        status, _, body = running.request("POST", "/v1/completions", {"prompt": "a"})
        assert status == 400
        assert "/v1/classify" in json.loads(body)["error"]["message"]


def test_wrong_inputs_are_named() -> None:
    with serving(classifier("tag")) as running:
        for text, param in ((" ", "input[0]"), ([], "input"), (["a", ""], "input[1]"), (["a"] * 257, "input"),
                            (1, "input"), (None, "input"), ([1], "input"), ("word " * 100, "input")):  # fmt: skip
            status, error = classify(running, text)
            assert (status, error["error"]["param"]) == (400, param), text
        assert classify(running, "a", model="other")[0] == 404


def test_a_language_model_names_the_route_that_it_has(faked: Running) -> None:
    status, error = classify(faked, "a")
    assert status == 400
    assert "/v1/chat/completions" in error["error"]["message"]
