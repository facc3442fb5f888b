"""Films and comparisons against the models of the checkpoints, each computed plainly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from engine_tasks import finished

from acorn.checkpoint.load import LoadedModel, load
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.runtime.choose import runtime_for_inference
from acorn.serve.film import Frames, compared, continued, frame_of

RUNTIME = runtime_for_inference("cpu", "fp32")
PROMPT = "the cat saw"


def plain_logprobs(loaded: LoadedModel, ids: list[int]) -> list[float]:
    with torch.no_grad():
        rows = loaded.model(torch.tensor([ids]))[0].double().log_softmax(-1)
    return [float(rows[place, token]) for place, token in enumerate(ids[1:])]


def test_a_frame_scores_the_prompt_and_goes_on_greedily(watched_run: Path) -> None:
    for step in (4, 12):
        loaded = load(watched_run, str(step))
        ids = loaded.tokenizer.encode_prompt(PROMPT)
        frame = finished(frame_of(loaded, ids, RUNTIME, 6))
        assert [token["logprob"] for token in frame["tokens"][1:]] == pytest.approx(
            plain_logprobs(loaded, ids), abs=1e-5
        )
        settings = SamplingSettings(max_new_tokens=6, greedy=True)
        [expected] = generate(loaded.model, loaded.tokenizer, [PROMPT], settings, decoder="torch")
        assert [token["id"] for token in frame["added"]] == expected.new_ids


def test_a_frame_without_new_tokens(watched_model: LoadedModel) -> None:
    frame = finished(frame_of(watched_model, [0, 1], RUNTIME, 0))
    assert frame["added"] == []


def test_a_seed_gives_the_text_of_generate(watched_model: LoadedModel) -> None:
    settings = SamplingSettings(max_new_tokens=10, seed=3, temperature=1.2, top_p=0.9, ignore_eos=True)
    ids = watched_model.tokenizer.encode_prompt(PROMPT)
    assert len(ids) + 10 <= watched_model.config.block_size
    found = finished(continued(watched_model, ids, settings, RUNTIME.autocast))
    [expected] = generate(watched_model.model, watched_model.tokenizer, [PROMPT], settings, decoder="torch")
    assert found == expected.new_ids


def test_a_continuation_ends_where_the_context_is_full(watched_model: LoadedModel) -> None:
    block = watched_model.config.block_size
    settings = SamplingSettings(max_new_tokens=100, seed=0, ignore_eos=True)
    found = finished(continued(watched_model, [5] * (block - 3), settings, RUNTIME.autocast))
    assert len(found) == 4  # the last one is predicted from a full context


def test_a_comparison_has_the_scores_of_both_models(watched_run: Path) -> None:
    left, right = load(watched_run, "4"), load(watched_run, "12")
    settings = SamplingSettings(max_new_tokens=5, seed=1, ignore_eos=True)
    found = finished(compared(left, right, PROMPT, settings, RUNTIME))
    assert found["same_tokenizer"]
    for side, own, other in zip(found["sides"], (left, right), (right, left), strict=True):
        ids = [token["id"] for token in side["tokens"]]
        assert ids[: side["prompt_tokens"]] == own.tokenizer.encode_prompt(PROMPT)
        assert len(ids) == side["prompt_tokens"] + 5
        assert [token["logprob"] for token in side["tokens"][1:]] == pytest.approx(plain_logprobs(own, ids), abs=1e-5)
        assert [token["other"] for token in side["tokens"][1:]] == pytest.approx(plain_logprobs(other, ids), abs=1e-5)
    assert found["sides"][0]["step"] == 4


def test_a_prompt_longer_than_the_context_goes_on_from_its_end(watched_run: Path) -> None:
    loaded = load(watched_run, "12")
    block, prompt = loaded.config.block_size, PROMPT * 60
    ids = loaded.tokenizer.encode_prompt(prompt)
    assert len(ids) > block
    settings = SamplingSettings(max_new_tokens=5, greedy=True, ignore_eos=True)
    [expected] = generate(loaded.model, loaded.tokenizer, [ids], dataclasses.replace(settings, max_new_tokens=1))
    frame = finished(frame_of(loaded, ids, RUNTIME, 5))
    assert [token["id"] for token in frame["tokens"]] == ids
    assert [token["id"] for token in frame["added"]] == expected.new_ids, "then the context is full"
    for side in finished(compared(loaded, loaded, prompt, settings, RUNTIME))["sides"]:
        assert [token["id"] for token in side["tokens"]] == [*ids, *expected.new_ids]


def test_frames_forget_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acorn.serve.film.KEPT_FRAMES", 2)
    frames = Frames()
    frames.add(("a",), {})
    frames.add(("b",), {})
    assert frames.get(("a",)) == {}
    frames.add(("c",), {})
    assert frames.get(("b",)) is None
    assert frames.get(("a",)) == {}
