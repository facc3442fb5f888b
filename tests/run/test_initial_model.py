"""Training that starts from another model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from other_models import make_model, style
from safetensors.torch import load_file, save_file
from small_models import classifier_for

from acorn.checkpoint.load import load
from acorn.checkpoint.model_folder import write_model_folder
from acorn.checkpoint.training_state import Counters
from acorn.config import Config, ModelConfig
from acorn.config_files import load_config, load_run_config
from acorn.data.prepare import prepare
from acorn.errors import DivergedError, InputError, StoppedError, UsageError
from acorn.evaluate.run_data import shards_of
from acorn.evaluate.validation import evaluate_split
from acorn.files import read_sealed_json
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.progress import QUIET, Quiet
from acorn.run.initial_model import _take_weights, with_network
from acorn.run.plan import plan_run
from acorn.run.pretrain import pretrain
from acorn.run_folder import RunFolder
from acorn.runtime.choose import runtime_for_inference
from acorn.text.splits import TextSplits
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.train import loop
from acorn.train.step import StepResult
from acorn.train.watcher import Unwatched

STILL = ("optimizer.name=adamw", "optimizer.lr=1e-30")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "llama"
    make_model(path, "llama-2")
    return path


@pytest.fixture
def config_from(text_file: Path):
    def build(model: Path, *overrides: str) -> Config:
        short = ["train.steps=6", "train.batch_size=2", "train.save_every=2", "train.eval_every=3", "train.threads=1"]
        exact = ["train.compile=false", "train.precision=fp32", "train.sample_every=0"]
        named = [f"train.init_from={model}", f"data.source={text_file}"]
        return load_config("small", [*named, *short, *exact, *overrides])

    return build


@pytest.mark.parametrize("name", ["gpt2", "llama-2", "qwen3"])
def test_the_run_starts_with_the_models_weights(name: str, tmp_path: Path, config_from) -> None:
    """With a negligible learning rate, the run has the figures and weights of the model."""
    theirs = make_model(tmp_path / "model", name, padding=0)
    pretrain(config_from(tmp_path / "model", *STILL, "train.steps=1"), tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    initial = load(tmp_path / "model")
    expected = evaluate_split(
        initial.model,
        initial.tokenizer,
        shards_of(run.final, initial.tokenizer),
        "valid",
        runtime_for_inference("cpu", "fp32"),
    )
    assert read_sealed_json(run.evaluation)["valid"]["loss_per_token"] == pytest.approx(expected.loss_per_token, 1e-6)
    final = transformers.AutoModelForCausalLM.from_pretrained(run.final)
    assert type(final) is type(theirs)
    for key, tensor in theirs.state_dict().items():
        torch.testing.assert_close(final.state_dict()[key], tensor, rtol=0, atol=0)
    config = load_run_config(run.config)
    assert config.train.init_from == str(tmp_path / "model")
    assert config.model.spelled_out() == initial.config.spelled_out()


class Stopped(Unwatched):
    """Sends this process a signal at the third step."""

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float | None) -> None:
        if record["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stopped_run_resumes_bit_identically_without_the_models_folder(
    tmp_path: Path, config_from, other: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(other, model)
    pretrain(config_from(model), tmp_path / "whole")
    with pytest.raises(StoppedError):
        pretrain(config_from(model), tmp_path / "parts", watcher=Stopped())
    shutil.rmtree(model)
    assert pretrain(config_from(model), tmp_path / "parts", resume=True).step == 6
    ends = [load_file(RunFolder(tmp_path / name).final / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert pretrain(None, tmp_path / "parts", resume=True).was_complete
    for override, said in (
        ("model.n_layer=3", "n_layer is 3"),
        ("model.block_size=32", "block_size: 64 in the run, 32"),
    ):
        with pytest.raises(UsageError, match=said):
            pretrain(config_from(model, override), tmp_path / "parts", resume=True)


def test_a_run_records_its_initial_model(tmp_path: Path, config_from, other: Path) -> None:
    """In its card, report, environment and checkpoints, also after resuming without the model and environment.json."""
    model = tmp_path / "private" / "theirs"
    shutil.copytree(other, model)
    (model / "README.md").write_text("---\nlicense: mit\nbase_model: me/older\n---\n# Model\n")
    with pytest.raises(StoppedError):
        pretrain(config_from(model), tmp_path / "a", watcher=Stopped())
    shutil.rmtree(model)
    (tmp_path / "a" / "environment.json").unlink()
    pretrain(None, tmp_path / "a", resume=True)
    pretrain(config_from(tmp_path / "a", "train.steps=1"), tmp_path / "b")
    expected = [
        {"name": "a", "kind": "run", "version": "step 6", "license": "", "text": "`my.txt` (license not stated)"},
        {"name": "theirs", "kind": "folder", "version": "", "license": "mit", "text": ""},
        {"name": "me/older", "kind": "hub", "version": "", "license": "", "text": ""},
    ]
    for name, bases in (("a", expected[1:]), ("b", expected)):
        run = RunFolder(tmp_path / name)
        card = (run.final / "README.md").read_text()
        metadata = yaml.safe_load(card.split("---\n")[1])
        assert metadata["base_model"] == "me/older"
        assert "from-scratch" not in metadata["tags"]
        assert "scratch" not in card
        assert "private" not in card
        assert "| the model folder `theirs` | mit |" in card
        assert json.loads(run.environment.read_bytes())["starts_from"] == bases
        [checkpoint] = list(run.checkpoints.glob("step-*"))[-1:]
        assert json.loads((checkpoint / "state.json").read_bytes())["resolved"]["starts_from"] == bases
    page = (tmp_path / "b" / "report.html").read_text()
    assert "trained from scratch" not in page
    assert "from the weights of the run a (step 6), which started from the model folder theirs" in page


def test_before_its_first_checkpoint_a_run_rolls_back_to_the_model(
    config_from, other: Path, tmp_path, monkeypatch
) -> None:
    began = []

    def poisoned(model: GPT, *_: Any, **__: Any) -> StepResult:
        began.append([parameter.detach().clone() for parameter in model.parameters()])
        model.init_weights(7)
        return StepResult(float("nan"), float("nan"), updated=False, diverged=True)

    monkeypatch.setattr(loop, "train_step", poisoned)
    with pytest.raises(DivergedError, match="after 1 rollbacks"):
        pretrain(config_from(other, "train.max_skips=0", "train.max_rollbacks=1"), tmp_path / "run")
    expected = list(load(other).model.parameters())
    assert len(began) == 2
    for weights in began:
        assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))


@pytest.mark.parametrize("now", ["gone", "another"])
def test_without_the_model_a_run_rolls_back_to_the_checkpoint_of_a_stop(
    now: str, config_from, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An uninterrupted run would not. That checkpoint is only removed once there is a better one."""
    model = tmp_path / "model"
    shutil.copytree(other, model)
    config = config_from(model, "train.save_every=0", "train.max_skips=0", "train.eval_every=0")
    with pytest.raises(StoppedError):
        pretrain(config, tmp_path / "run", watcher=Stopped())
    if now == "gone":
        shutil.rmtree(model)
    real, starts = loop.train_step, []

    def poisoned(*given: Any, counters: Counters, **options: Any) -> StepResult:
        if now == "another" and not starts:  # after resuming has checked it; with the same shapes
            weights = load_file(model / "model.safetensors")
            save_file(
                {name: 2 * tensor for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"}
            )
        starts.append(counters.step)
        if counters.step == 4 and not counters.rollbacks:
            return StepResult(float("nan"), float("nan"), updated=False, diverged=True)
        return real(*given, counters=counters, **options)

    monkeypatch.setattr(loop, "train_step", poisoned)
    pretrain(None, tmp_path / "run", resume=True)
    assert starts == [3, 4, 3, 4, 5]


@pytest.mark.fault(40)
def test_a_changed_model_is_refused_after_the_first_step(config_from, other: Path, tmp_path: Path) -> None:
    """Fault 40: the message names both. Before the first step, a run uses the current model."""
    model = tmp_path / "model"
    shutil.copytree(other, model)
    with pytest.raises(StoppedError):
        pretrain(config_from(model), tmp_path / "run", watcher=Stopped())
    before = sha256(model / "model.safetensors")
    shutil.rmtree(model)
    make_model(model, "gpt2")
    with pytest.raises(UsageError, match=r"train\.init_from: .*model\.safetensors: ") as caught:
        pretrain(None, tmp_path / "run", resume=True)
    assert before[:12] in caught.value.what
    assert sha256(model / "model.safetensors")[:12] in caught.value.what
    shutil.rmtree(model)
    shutil.copytree(other, model)
    assert pretrain(None, tmp_path / "run", resume=True).step == 6


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["gpt2", "llama-2"])
def test_the_context_may_be_shorter_than_the_models(name: str, tmp_path: Path, config_from) -> None:
    make_model(tmp_path / "model", name, padding=0)
    pretrain(config_from(tmp_path / "model", *STILL, "train.steps=1", "model.block_size=16"), tmp_path / "run")
    short, long = load(tmp_path / "run"), load(tmp_path / "model")
    assert short.config.block_size == 16
    ids = torch.arange(16)[None]
    with torch.no_grad():
        torch.testing.assert_close(short.model(ids), long.model(ids))


def test_settings_that_agree_with_the_model_are_accepted(other: Path) -> None:
    network = load(other).config
    asked = load_config(
        "small", [f"train.init_from={other}", "model.n_layer=2", "model.n_kv_head=2", "model.tied=false"]
    )
    assert with_network(asked, network).model.spelled_out() == network.spelled_out()
    every = with_network(asked, network)
    assert with_network(every, network) == every


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.n_layer=5", "model.n_layer is 5; the model has 2"),
        ("model.n_head=2", "model.n_head is 2; the model has 4"),
        ("model.qk_norm=true", "model.qk_norm is True; the model has False"),
        ("model.architecture=gpt2", "model.architecture is 'gpt2'; the model has 'modern'"),
        ("model.block_size=65", "model.block_size is 65; the model supports 64 positions"),
        ("model.vocab_size=9", "model.vocab_size is 9; the model has"),
        ("tokenizer.vocab_size=512", "the model has its own tokenizer"),
    ],
)
def test_contradicting_settings_are_refused_and_nothing_is_left(
    override: str, said: str, tmp_path: Path, config_from, other: Path
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        pretrain(config_from(other, override), tmp_path / "run")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_shards_must_be_made_with_the_models_tokenizer(
    tmp_path: Path, text_file: Path, config_from, other: Path
) -> None:
    texts = TextSplits.open(config_from(other).data, QUIET)
    for name, file in (("fits", other / "tokenizer.json"), ("other", None)):
        tokenizer = Tokenizer.from_file(file) if file else Tokenizer.from_json(style("gpt2")[0])
        prepare(texts, tokenizer, tmp_path / name)
    pretrain(config_from(other, "train.steps=1", f"data.shards={tmp_path / 'fits'}"), tmp_path / "run")
    with pytest.raises(InputError, match="a different tokenizer"):
        pretrain(config_from(other, f"data.shards={tmp_path / 'other'}"), tmp_path / "second")


def test_a_plan_uses_the_models_network_and_tokenizer(config_from, other: Path) -> None:
    facts = plan_run(config_from(other))
    assert facts["parameters"] == sum(p.numel() for p in load(other).model.parameters())


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
def test_a_label_head_begins_anew_and_the_rest_as_the_model(architecture: str) -> None:
    """Also with a shorter context, which has the first of the learned positions."""
    shape = {"architecture": architecture, "n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 11}
    base = GPT(ModelConfig(**shape, block_size=8))
    base.init_weights(1)
    model = GPT(ModelConfig(**shape, block_size=5), head=HeadSpec("class", 3))
    model.init_weights(2)
    score = model.score.weight.clone()
    _take_weights(model, base)
    weights = dict(base.named_parameters())
    for name, parameter in model.named_parameters():
        expected = score if name == "score.weight" else weights[name][: len(parameter)]
        assert torch.equal(parameter, expected), name


@pytest.mark.parametrize("tied", [True, False])
def test_a_classifier_as_a_base_gives_its_trunk_and_that_is_said(tmp_path: Path, config_from, tied: bool) -> None:
    tokenizer = LabelText(Tokenizer.from_json(style("qwen3")[0], as_it_is=True)).tokenizer
    base = classifier_for(tokenizer, HeadSpec("class", 3), architecture="modern", tied=tied, block_size=64)
    write_model_folder(tmp_path / "model", base, tokenizer, "card", labels=["a", "b", "c"])
    notes: list[str] = []

    class Notes(Quiet):
        def note(self, message: str) -> None:
            notes.append(message)

    pretrain(config_from(tmp_path / "model", *STILL, "train.steps=1"), tmp_path / "run", progress=Notes())
    assert any("Its label head is left out" in note for note in notes)
    assert any("head.weight: initialized" in note for note in notes) != tied
    model, trunk = load(tmp_path / "run").model, dict(base.named_parameters())
    head = model.head
    assert head is not None
    for name, parameter in model.named_parameters():
        if name in trunk:
            assert torch.equal(parameter, trunk[name]), name
    assert tied or head.weight.std() > 0.01
    assert "score.weight" not in dict(model.named_parameters())
