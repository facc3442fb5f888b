"""Scores against plain loops over whole logits, and figures against closed forms."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from acorn.config import DataConfig, ModelConfig, TrainConfig
from acorn.data.prepare import prepare
from acorn.data.token_shards import TokenSequence, TokenShards
from acorn.errors import DamageError, InputError, UsageError
from acorn.evaluate import validation
from acorn.evaluate.validation import Evaluation, evaluate_documents, evaluate_split, score, windows
from acorn.model.gpt import GPT
from acorn.progress import Quiet
from acorn.run.resolve import choose_runtime
from acorn.runtime.device import Runtime
from acorn.text.corpus import Document
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

CONTRACT = [
    *("split", "loss_per_token", "perplexity_per_token", "bits_per_byte", "word_perplexity"),
    *("tokens", "bytes", "words", "documents", "context", "stride", "precision"),
    *("lossless", "round_trip_rate", "unknown_rate", "bits_per_byte_note", "word_perplexity_note"),
]
VOCABULARY, BLOCK = 17, 8
LINES = ["The old oak stood where the paths met.", "An acorn fell.", "Nobody knew; nobody asked, naïve as they were."]


def model_of(vocab_size: int = VOCABULARY, architecture: str = "gpt2", dropout: float = 0.0) -> GPT:
    model = GPT(
        ModelConfig(
            architecture=architecture,
            tied=architecture == "gpt2",
            n_layer=1,
            n_head=2,
            n_embd=16,
            block_size=BLOCK,
            vocab_size=vocab_size,
            dropout=dropout,
        )
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1))
    return model


def tokens_of(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, VOCABULARY, n).astype(np.uint16)


@torch.no_grad()
def slow_score(model: GPT, tokens: np.ndarray, context: int, stride: int) -> float:
    """Scores one token at a time, in the first window with that stride that contains it."""
    model.eval()
    ids = torch.from_numpy(tokens.astype(np.int64))
    total = 0.0
    for target in range(1, len(ids)):
        begin = max(0, -(-(target - context) // stride)) * stride  # the first window that reaches the target
        logits = model(ids[None, begin:target])[0, -1]
        total += float(F.cross_entropy(logits.double(), ids[target]))
    return total


@given(st.integers(0, 60), st.integers(1, 12), st.data())
def test_windows_score_each_token_once(n: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    scored = []
    for window in windows(n, context, stride):
        assert 1 <= window.scored <= window.length <= context
        assert window.begin % stride == 0
        end = window.begin + window.length
        scored += range(end - window.scored + 1, end + 1)
        # all but the first tokens are predicted from at least context - stride others
        assert window.begin == 0 or window.length - window.scored >= context - stride
    assert scored == list(range(1, n + 1))


@pytest.mark.parametrize(
    ("n", "context", "stride"),
    [
        (33, 8, 8),  # whole windows
        (30, 8, 8),  # row 50: a partial last window counts
        (5, 8, 8),  # row 50: shorter than a window
        (9, 8, 8),  # exactly one window
        (2, 8, 3),
        (30, 8, 3),
        (30, 8, 1),
        (27, 5, 4),
        (12, 1, 1),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_score_equals_a_loop_over_tokens(n: int, context: int, stride: int, batch_size: int) -> None:
    """Fault 50."""
    model, tokens = model_of(), tokens_of(n)
    total, count = score(model, tokens, context=context, stride=stride, batch_size=batch_size)
    assert count == n - 1
    assert total == pytest.approx(slow_score(model, tokens, context, stride), rel=1e-5)


def test_by_default_windows_do_not_overlap() -> None:
    model, tokens = model_of(), tokens_of(40)
    assert score(model, tokens, context=6) == score(model, tokens, context=6, stride=6)
    assert score(model, tokens, context=6)[0] != pytest.approx(score(model, tokens, context=6, stride=2)[0], rel=1e-4)


@pytest.mark.parametrize("n", [0, 1])
def test_without_a_token_to_predict_the_loss_is_zero(n: int) -> None:
    assert score(model_of(), tokens_of(n), context=4) == (0.0, 0)


@pytest.mark.parametrize("limit", [1, 7, 8, 20, 39, 1000])
def test_a_limit_scores_the_first_tokens(limit: int) -> None:
    model, tokens = model_of(), tokens_of(40)
    wanted = score(model, tokens[: limit + 1], context=8, stride=4)
    assert score(model, tokens, context=8, stride=4, limit=limit) == pytest.approx(wanted, rel=1e-6)


def test_a_uniform_model_has_the_vocabulary_size_as_perplexity() -> None:
    model = model_of(architecture="modern")
    with torch.no_grad():
        model.head.weight.zero_()
    total, count = score(model, tokens_of(1000), context=8, stride=5)
    assert math.exp(total / count) == pytest.approx(VOCABULARY, rel=1e-6)


def test_tokens_may_be_in_shards(tmp_path: Path) -> None:
    tokens = tokens_of(50)
    files = []
    for number, part in enumerate(np.split(tokens, [7, 20, 21])):
        files.append(tmp_path / f"{number}.bin")
        files[-1].write_bytes(part.tobytes())
    model = model_of()
    shards = TokenSequence(files, np.dtype("<u2"))
    assert score(model, shards, context=8, stride=3) == score(model, tokens, context=8, stride=3)


def test_scoring_changes_neither_the_model_nor_the_random_state() -> None:
    """Fault 51: uses no random numbers and changes no mode, weight or gradient; dropout is off during scoring."""
    model = model_of(dropout=0.5).train()
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    first = score(model, tokens_of(30), context=8)
    assert first == score(model, tokens_of(30), context=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_training_step_after_scoring_is_the_same_as_without() -> None:
    """Fault 51: also under autocast, which caches converted weights."""

    def gradient(with_score: bool) -> torch.Tensor:
        model = model_of(dropout=0.5).train()
        torch.manual_seed(0)
        ids = torch.from_numpy(tokens_of(18).astype(np.int64)).reshape(2, 9)
        if with_score:
            score(model, tokens_of(30), context=8, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        return model.token_embedding.weight.grad

    assert torch.equal(gradient(False), gradient(True))


def test_the_mode_is_restored_after_an_error() -> None:
    model = model_of().train()

    class Interrupting(Quiet):
        def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(model, tokens_of(30), context=8, progress=Interrupting())
    assert model.training


def test_autocast_wraps_every_forward_pass() -> None:
    entered = []

    @contextlib.contextmanager
    def autocast() -> Iterator[None]:
        entered.append(True)
        with torch.autocast("cpu", torch.bfloat16):
            yield

    model, tokens = model_of(), tokens_of(40)
    narrow, _ = score(model, tokens, context=8, batch_size=2, autocast=autocast)
    wide, _ = score(model, tokens, context=8, batch_size=2)
    assert len(entered) == 3
    assert narrow != wide
    assert narrow == pytest.approx(wide, rel=0.05)


@pytest.mark.parametrize(
    ("context", "stride", "name"),
    [(BLOCK + 1, 1, "context"), (0, 1, "context"), (-3, 1, "context"), (4, 5, "stride"), (4, 0, "stride")],
)
def test_a_context_or_stride_out_of_range_is_refused(context: int, stride: int, name: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        score(model_of(), tokens_of(30), context=context, stride=stride)
    assert caught.value.fix


def test_progress_counts_tokens_to_the_end() -> None:
    heard: list[tuple[float, float, str]] = []

    class Listening(Quiet):
        def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
            heard.append((done, total, unit))

    score(model_of(), tokens_of(30), context=8, stride=3, batch_size=2, progress=Listening())
    assert heard[-1] == (29, 29, "tokens")
    assert [done for done, _, _ in heard] == sorted(done for done, _, _ in heard)


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    return train(lambda: LINES, "bpe", 290)


@pytest.fixture(scope="session")
def wordpiece() -> Tokenizer:
    return train(lambda: LINES, "wordpiece", 120)


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    return choose_runtime(TrainConfig(device="cpu", precision="fp32", compile=False, threads=1))


def text_files(folder: Path) -> DataConfig:
    for name, lines in (("train", LINES), ("valid", LINES[::-1])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return DataConfig(source=(str(folder / "train.jsonl"),), valid_source=(str(folder / "valid.jsonl"),))


def documents() -> list[Document]:
    return [Document(line, len(line.encode()), len(line.split()) + 1, "here") for line in LINES[::-1]]


def test_metrics_of_a_uniform_model_equal_the_closed_form(bpe: Tokenizer, runtime: Runtime) -> None:
    """Fault 52: bytes and words are those of the original documents, not of decoded tokens."""
    model = model_of(bpe.vocab_size, "modern")
    with torch.no_grad():
        model.head.weight.zero_()
    result = evaluate_documents(model, bpe, documents(), runtime)
    n_tokens = sum(map(len, bpe.encode_documents(LINES))) + 3  # a separator after each document is predicted
    n_bytes, n_words = len("".join(LINES).encode()), len(" ".join(LINES).split()) + 3
    loss = n_tokens * math.log(bpe.vocab_size)
    assert (result.tokens, result.bytes, result.words, result.documents) == (n_tokens, n_bytes, n_words, 3)
    assert result.loss_per_token == pytest.approx(math.log(bpe.vocab_size))
    assert result.perplexity_per_token == pytest.approx(bpe.vocab_size)
    assert result.bits_per_byte == pytest.approx(loss / math.log(2) / n_bytes)
    assert result.word_perplexity == pytest.approx(math.exp(loss / n_words), rel=1e-5)
    assert (result.split, result.context, result.stride, result.precision) == ("input", BLOCK, BLOCK, "fp32")
    assert (result.lossless, result.round_trip_rate, result.unknown_rate) == (True, 1.0, 0.0)
    assert (result.bits_per_byte_note, result.word_perplexity_note) == (None, None)


def test_a_prepared_split_and_its_documents_score_alike(tmp_path: Path, bpe: Tokenizer, runtime: Runtime) -> None:
    shards = prepare(TextSplits.open(text_files(tmp_path)), bpe, tmp_path / "shards")
    model = model_of(bpe.vocab_size)
    split = evaluate_split(model, bpe, shards, "valid", runtime, context=6, stride=2, batch_size=5)
    texts = evaluate_documents(model, bpe, documents(), runtime, context=6, stride=2, batch_size=5)
    measured = {"split": "", "round_trip_rate": 0, "unknown_rate": 0}
    assert dataclasses.replace(split, **measured) == dataclasses.replace(texts, **measured)
    assert (split.split, split.context, split.stride) == ("valid", 6, 2)


def test_the_fields_are_those_of_the_contract_and_json(bpe: Tokenizer, runtime: Runtime) -> None:
    result = dataclasses.asdict(evaluate_documents(model_of(bpe.vocab_size), bpe, documents(), runtime))
    assert list(result) == CONTRACT
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_partial_score_is_noted(tmp_path: Path, bpe: Tokenizer, runtime: Runtime) -> None:
    shards = prepare(TextSplits.open(text_files(tmp_path)), bpe, tmp_path / "shards")
    model = model_of(bpe.vocab_size, "modern")
    with torch.no_grad():
        model.head.weight.zero_()  # every token costs the same
    whole = evaluate_split(model, bpe, shards, "valid", runtime)
    half = evaluate_split(model, bpe, shards, "valid", runtime, limit=whole.tokens // 2)
    assert half.tokens == whole.tokens // 2
    assert half.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=0.02)
    assert half.bytes == round(whole.bytes * half.tokens / whole.tokens)
    assert f"the first {half.tokens:,} of {whole.tokens:,} tokens" in half.bits_per_byte_note
    assert whole.bits_per_byte_note is None


def test_rates_of_a_split_are_those_in_its_manifest(tmp_path: Path, bpe: Tokenizer, runtime: Runtime) -> None:
    shards = prepare(TextSplits.open(text_files(tmp_path)), bpe, tmp_path / "shards")
    model = model_of(bpe.vocab_size)

    def rates(manifest: dict[str, object]) -> tuple[float | None, float | None]:
        result = evaluate_split(model, bpe, TokenShards(shards.folder, manifest), "valid", runtime)
        return result.round_trip_rate, result.unknown_rate

    bare = {name: value for name, value in shards.manifest.items() if name != "tokenizer_report"}
    assert rates(bare) == (None, None)
    report = {"valid": {"round_trip_rate": 0.75, "unknown_rate": 0.125}}
    assert rates(bare | {"tokenizer_report": report}) == (0.75, 0.125)


def test_unknown_tokens_of_a_whole_text_are_counted(
    wordpiece: Tokenizer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only in its first part; and a text that contains the token's name as text has none."""
    monkeypatch.setattr(validation, "ROUND_TRIP_CHARACTERS", 10)
    model = model_of(wordpiece.vocab_size)

    def evaluate(*texts: str) -> Evaluation:
        found = (Document(text, len(text.encode()), len(text.split()) + 1, "here") for text in texts)
        return evaluate_documents(model, wordpiece, found, runtime)

    foreign = evaluate(*LINES, "дуб дуб")
    known = sum(map(len, wordpiece.encode_documents(LINES)))
    assert foreign.unknown_rate == pytest.approx(2 / (known + 2))
    assert foreign.bits_per_byte is None
    assert "unknown tokens" in foreign.bits_per_byte_note
    assert foreign.loss_per_token > 0
    spelled = evaluate(*LINES, "[UNK] [UNK]")
    assert spelled.unknown_rate == 0
    assert spelled.bits_per_byte > 0


def test_a_lossy_tokenizer_gives_no_word_perplexity(wordpiece: Tokenizer, runtime: Runtime) -> None:
    result = evaluate_documents(model_of(wordpiece.vocab_size), wordpiece, documents(), runtime)
    assert result.word_perplexity is None
    assert "normalization" in result.word_perplexity_note
    assert "normalization" in result.bits_per_byte_note
    assert not result.lossless
    assert result.round_trip_rate < 1  # naïve comes back as naive
    assert result.bytes == len("".join(LINES).encode())


def test_cleaned_text_gives_no_word_perplexity(bpe: Tokenizer, runtime: Runtime) -> None:
    result = evaluate_documents(model_of(bpe.vocab_size), bpe, documents(), runtime, clean="wikitext")
    assert result.word_perplexity is None
    assert "wikitext" in result.word_perplexity_note
    assert "wikitext" in result.bits_per_byte_note


def test_a_perplexity_that_overflows_is_omitted(bpe: Tokenizer, runtime: Runtime) -> None:
    model = model_of(bpe.vocab_size, "modern")
    with torch.no_grad():
        model.head.weight.mul_(5000)
    result = evaluate_documents(model, bpe, documents(), runtime)
    assert result.loss_per_token > 710
    assert result.perplexity_per_token is None
    assert result.word_perplexity is None
    assert "bits per word it is above 1,000,000,000" in result.word_perplexity_note
    json.dumps(dataclasses.asdict(result), allow_nan=False)


def test_a_loss_that_is_not_finite_is_an_error(bpe: Tokenizer, runtime: Runtime) -> None:
    model = model_of(bpe.vocab_size)
    with torch.no_grad():
        model.final_norm.weight[0] = math.nan
    with pytest.raises(DamageError, match="nan"):
        evaluate_documents(model, bpe, documents(), runtime)


def test_an_empty_text_is_an_error(bpe: Tokenizer, runtime: Runtime) -> None:
    with pytest.raises(InputError, match="0 documents"):
        evaluate_documents(model_of(bpe.vocab_size), bpe, [], runtime)


def test_a_missing_split_is_named(tmp_path: Path, bpe: Tokenizer, runtime: Runtime) -> None:
    shards = prepare(TextSplits.open(text_files(tmp_path)), bpe, tmp_path / "shards")
    with pytest.raises(UsageError, match="The run has no test text") as caught:
        evaluate_split(model_of(bpe.vocab_size), bpe, shards, "test", runtime)
    assert "valid" in caught.value.fix


def test_many_documents_are_encoded_in_batches(
    bpe: Tokenizer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(bpe.vocab_size)
    whole = evaluate_documents(model, bpe, documents(), runtime)
    monkeypatch.setattr("acorn.data.prepare.BATCH_CHARACTERS", 20)
    assert evaluate_documents(model, bpe, documents(), runtime) == whole


def test_round_trips_are_measured_on_the_beginning_of_a_long_text(
    wordpiece: Tokenizer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acorn.evaluate.validation.ROUND_TRIP_CHARACTERS", 16)
    model = model_of(wordpiece.vocab_size)
    measured = documents()[1:] + documents()[:1]  # the word that is changed stands in the last document now
    assert evaluate_documents(model, wordpiece, measured, runtime).round_trip_rate == 1.0
