"""The benchmark compares equal networks, and its figures are right."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from acorn.config import ModelConfig, OptimizerConfig
from acorn.model.gpt import GPT
from acorn.model.sizing import size_of
from acorn.train.optimizer import build_optimizers
from benchmarks import training
from benchmarks.contenders.acorn_training import iteration_flops
from benchmarks.contenders.original_model import OriginalModel
from benchmarks.machine import Ceiling, matmul_shapes
from benchmarks.turns import Contender, take_turns

SIZES = {"vocab_size": 50, "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8}
NAMES = {
    "attention.query": "attention.q_proj",
    "attention.key": "attention.k_proj",
    "attention.value": "attention.v_proj",
    "attention.projection": "attention.o_proj",
    "mlp_norm": "mlp_norm",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "norm": "final_norm",
}


def test_the_reimplemented_original_equals_acorns() -> None:
    original = OriginalModel(**SIZES)
    ours = GPT(ModelConfig(architecture="original", **SIZES)).eval()
    weights = {_our_name(name): tensor for name, tensor in original.state_dict().items() if not name.endswith("mask")}
    ours.load_state_dict(weights)
    ids = torch.randint(50, (3, 8), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(original(ids), ours(ids))


def _our_name(name: str) -> str:
    module, kind = name.rsplit(".", 1)
    prefix, inner = "", module
    if module.startswith("blocks."):
        prefix, inner = ".".join(module.split(".")[:2]) + ".", module.split(".", 2)[2]
    return f"{prefix}{NAMES.get(inner, inner)}.{kind}"


@pytest.mark.parametrize("name", training.TASKS)
def test_transformers_trains_the_same_network(name: str) -> None:
    import transformers

    task = training.TASKS[name]
    settings = training._transformers(task)
    config = getattr(transformers, training._CLASSES[task.architecture])(**settings)
    with torch.device("meta"):
        theirs = transformers.AutoModelForCausalLM.from_config(config)
    # GPT-2 has biases of queries, keys and values; the original has none.
    biases = 3 * task.n_embd * task.n_layer if task.architecture == "original" else 0
    assert sum(p.numel() for p in theirs.parameters()) == size_of(task.config.model).parameters + biases


@pytest.mark.parametrize(
    ("precision", "theirs", "ours", "litgpt"),
    [
        ("bf16", "bf16", ["bf16"] * 5, ["litgpt (bf16-mixed)", "litgpt (bf16-true)"]),
        ("fp32", "fp32", ["fp32"] * 5, ["litgpt (32-true)"]),
        # the second and third: in fp32, and compiled
        ("fp16", "fp32", ["fp16", "fp32", "fp32", *["fp16"] * 3], ["litgpt (32-true)"]),
    ],
)
def test_the_others_train_in_their_fastest_precision(
    precision: str, theirs: str, ours: list[str], litgpt: list[str]
) -> None:
    contenders = training.contenders_of(training.TASKS["modern-256"], "cpu", precision, sys.executable)
    others = [c for c in contenders if c.module == "transformers_training"]
    assert [c.specification["precision"] for c in others] == [theirs] * 3
    found = [c.specification["acorn"]["train.precision"] for c in contenders if c.module == "acorn_training"]
    assert found == ours
    assert [c.name for c in contenders if c.module == "litgpt_training"] == litgpt


@pytest.mark.parametrize("name", training.TASKS)
def test_the_ceiling_counts_every_matmul(name: str) -> None:
    model = training.TASKS[name].config.model
    elements = sum(rows * columns * count for (rows, columns), count in matmul_shapes(model).items())
    assert elements == size_of(model).matrix_parameters


def test_contenders_take_turns_and_a_failure_is_reported() -> None:
    good: dict[str, Any] = {"device": "cpu", "warm_up": 1, "batch_size": 2, "original_model": SIZES}
    contenders = [
        Contender("good", "original_training", good),
        Contender("bad", "original_training", good | {"original_model": SIZES | {"n_embd": "wide"}}),
        Contender("absent", "original_training", good, python=sys.executable + "-that-is-not-there"),
    ]
    take_turns(contenders, rounds=2, seconds=0.01, say=lambda line: None)
    good_one, bad, absent = contenders
    assert len(good_one.turns) == 2
    assert all(rate > 0 for rate in good_one.rates)
    assert good_one.peak_bytes > 2**20
    assert all(turn["tokens"] % (2 * SIZES["block_size"]) == 0 for turn in good_one.turns)
    assert "TypeError" in bad.failure
    assert "No such file" in absent.failure
    assert bad.facts() == {"name": "bad", "failure": bad.failure}


def test_if_acorn_fails_the_others_are_still_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = Contender("acorn", "none", {}, failure="no such module")
    other = Contender("other", "none", {}, turns=[{"tokens": 100, "seconds": 2.0, "peak_bytes": 1}], ready={})
    other.ready["first_seconds"] = 1.0
    monkeypatch.setattr(training, "contenders_of", lambda *_: [failed, other])
    monkeypatch.setattr(training, "ceiling_of", lambda *_: Ceiling(1e9, 1e9))
    monkeypatch.setattr(training, "take_turns", lambda *_, before_round, **__: before_round())
    found = training.measure_training(["tiny"], "cpu", None, 1, 1.0, "", print)["tiny"]["contenders"]
    assert found[0] == {"name": "acorn", "failure": "no such module"}
    assert found[1]["tokens_per_second"] == 50
    assert "acorn_times_as_fast" not in found[1]
    assert "not measured: no such module" in capsys.readouterr().out


def test_flops_of_muons_iterations_equal_pytorchs_count() -> None:
    config = ModelConfig(n_layer=2, n_embd=32, n_head=2, block_size=8, vocab_size=50)
    model = GPT(config)
    model.init_weights(0)
    optimizers = build_optimizers(model, OptimizerConfig(name="muon"), muon_dtype=torch.float32)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    with FlopCounterMode(display=False) as counter:
        optimizers[-1].step()
    assert iteration_flops(optimizers[-1]) == counter.get_total_flops() > 0
    assert iteration_flops(optimizers[0]) == 0
