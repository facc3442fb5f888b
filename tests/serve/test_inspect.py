"""Scores against forwards of whole texts without a cache, and bits per byte against those of `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engine_tasks import finished
from small_models import model_for

from acorn.checkpoint.load import LoadedModel
from acorn.config import DataConfig
from acorn.errors import DamageError
from acorn.evaluate.validation import evaluate_documents
from acorn.model.gpt import GPT
from acorn.runtime.choose import runtime_for_inference
from acorn.serve.inspect import (
    Score,
    distribution_of,
    inspect_document,
    inspect_ids,
    prompt_scores,
    scores_of,
    unsampled_ids,
)
from acorn.serve.token_text import TokenTexts
from acorn.text.splits import TextSplits
from acorn.tokenizer.training import train

RUNTIME = runtime_for_inference("cpu", "fp32")
TEXT = "the cat saw a naïve dog; then it slept under the old 橡树 and the bird ate. " * 3


def plain_logprobs(model: GPT, ids: list[int]) -> torch.Tensor:
    """Log probabilities (T, V) after each id, in one forward of the whole text."""
    with torch.no_grad():
        return model(torch.tensor([ids]))[0].double().log_softmax(-1)


def test_the_figure_is_that_of_evaluate_for_a_file(watched_model: LoadedModel, tmp_path: Path) -> None:
    """With more text than fits in the context several times, and characters of several tokens."""
    file = tmp_path / "one.txt"
    file.write_text(TEXT)
    data = DataConfig(document="file")
    texts = TextSplits.open_held_out([str(file)], data)
    expected = evaluate_documents(
        watched_model.model, watched_model.tokenizer, texts.documents(texts.names[0]), RUNTIME
    )
    assert expected.documents == 1
    assert expected.tokens > 3 * watched_model.config.block_size

    found = finished(inspect_document(watched_model, TEXT, RUNTIME, top=0, next_top=0))

    assert found["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-6)  # sums in fp32 there
    assert found["bytes"] == expected.bytes
    assert len(found["tokens"]) - 1 == expected.tokens
    assert found["loss_per_token"] == pytest.approx(expected.loss_per_token, rel=1e-6)


def test_tokens_of_a_document_spell_it(watched_model: LoadedModel) -> None:
    tokens = finished(inspect_document(watched_model, TEXT, RUNTIME, top=0, next_top=0))["tokens"]
    assert bytes.fromhex("".join(token["bytes"] for token in tokens[1:-1])).decode() == TEXT
    assert tokens[0]["logprob"] is None
    assert tokens[-1]["piece"] == watched_model.tokenizer.separator


def test_scores_of_a_prompt_are_those_of_one_forward(watched_model: LoadedModel) -> None:
    ids = watched_model.tokenizer.encode_prompt("the cat saw a dog")
    assert 4 < len(ids) <= watched_model.config.block_size
    logprobs = plain_logprobs(watched_model.model, ids)

    found = finished(inspect_ids(watched_model, ids, RUNTIME, top=3, next_top=5))

    for place, token in enumerate(found["tokens"][1:], start=1):
        row = logprobs[place - 1]
        assert token["id"] == ids[place]
        assert token["logprob"] == pytest.approx(float(row[ids[place]]), abs=1e-5)
        assert token["entropy"] == pytest.approx(float(-(row.exp() * row).sum()), abs=1e-4)
        assert token["rank"] == sorted(row.tolist(), reverse=True).index(float(row[ids[place]])) + 1
        assert [entry[0] for entry in token["top"]] == row.topk(3).indices.tolist()
    banned = unsampled_ids(watched_model)
    last = logprobs[-1].index_fill(0, torch.tensor(banned, dtype=torch.long), -math.inf)
    assert [entry[0] for entry in found["next"]["top"]] == last.topk(5).indices.tolist()
    everything = sum(math.exp(entry[2]) for entry in found["next"]["top"])
    everything += sum(math.exp(logprob) * count for logprob, count in found["next"]["rest"])
    assert everything + found["next"]["unsampled"] == pytest.approx(1, abs=1e-6)


def test_a_prompt_longer_than_the_context_continues_from_its_end(watched_model: LoadedModel) -> None:
    model = watched_model.model
    block = model.config.block_size
    ids = [n % 250 for n in range(2 * block + 5)]
    scores, logits = finished(prompt_scores(model, ids, 0, RUNTIME.autocast))
    assert [score.id for score in scores] == ids
    torch.testing.assert_close(
        logits.double().log_softmax(-1), plain_logprobs(model, ids[-block * 3 // 4 :])[-1], atol=1e-5, rtol=0
    )


def test_long_texts_are_computed_in_many_parts(watched_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that others get their turns; the figures do not depend on the size of the parts."""
    ids = [n % 250 for n in range(3 * watched_model.config.block_size)]
    whole, _ = finished(scores_of(watched_model.model, ids, 0, RUNTIME.autocast))
    monkeypatch.setattr("acorn.serve.inspect.chunk_tokens", lambda model: 5)
    found: list[Score] = []

    def kept() -> Iterator[None]:
        scores, _ = yield from scores_of(watched_model.model, ids, 0, RUNTIME.autocast)
        found.extend(scores)

    turns = sum(1 for _ in kept())
    assert turns >= len(ids) // 5
    for one, other in zip(found[1:], whole[1:], strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)


def test_bins_have_the_probability_of_the_tokens_in_them() -> None:
    logits = torch.randn(400, generator=torch.Generator().manual_seed(0)) * 3
    found = distribution_of(logits, 10, [7])
    logprobs = logits.double().log_softmax(-1)
    listed = {token for token, _ in found.top}
    assert found.unsampled == pytest.approx(float(logprobs[7].exp()))
    assert 7 not in listed
    others = [float(logprobs[n]) for n in range(400) if n not in listed and n != 7]
    assert sum(count for _, count in found.rest) == len(others) == 389
    assert sum(count * math.exp(value) for value, count in found.rest) == pytest.approx(sum(map(math.exp, others)))
    assert [value for value, _ in found.rest] == sorted((value for value, _ in found.rest), reverse=True)


def test_a_model_that_is_not_finite_is_refused(watched_model: LoadedModel, bpe_model: GPT) -> None:
    with torch.no_grad():
        bpe_model.final_norm.weight.fill_(math.nan)
    with pytest.raises(DamageError, match="not finite"):
        finished(scores_of(bpe_model, [1, 2, 3], 0, RUNTIME.autocast))


@pytest.fixture
def bpe_model(watched_model: LoadedModel) -> GPT:
    return model_for(watched_model.tokenizer, "gpt2", n_layer=1)


def test_pieces_of_wordpiece_are_the_words() -> None:
    tokenizer = train(lambda: ["Walking, talked, walker, talks."] * 20, "wordpiece", 80)
    pieces = TokenTexts(tokenizer)
    [ids] = tokenizer.encode_documents(["Walking talks"])
    assert "".join(map(pieces.text, ids)).strip().lower() == "walking talks"
    assert pieces.text(tokenizer.separator_id) == tokenizer.separator
