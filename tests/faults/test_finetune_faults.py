"""What goes wrong in finetuning, and what acorn then does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from acorn.checkpoint.load import load
from acorn.config_files import load_config
from acorn.errors import AcornError, DamageError, InputError, UsageError
from acorn.files import read_sealed_json
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.run.baselines import finetune_with_baseline
from acorn.run.example_evaluation import evaluate_examples, origin_of
from acorn.run.finetune import finetune
from acorn.run.finetune_config import finetune_config
from acorn.run.pretrain import pretrain
from acorn.run_folder import RunFolder
from acorn.runtime.choose import runtime_for_inference

LABELED = [{"text": f"the {'cat' if n % 2 else 'dog'} saw {n}", "label": "pet" if n % 2 else "dog"} for n in range(40)]


class Notes:
    """A progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def at(self, *progress: object) -> None: ...

    def end(self, task: str) -> None: ...


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    (folder / "my.txt").write_text("".join(f"The {n}th cat saw the dog.\n" for n in range(600)))
    sizes = ["tokenizer.vocab_size=300", "model.n_layer=1", "model.n_embd=32", "model.block_size=32", "train.steps=2"]
    rest = ["train.eval_every=0", "train.precision=fp32", "train.threads=1", "train.sample_tokens=2"]
    pretrain(load_config("small", [f"data.source={folder / 'my.txt'}", *sizes, *rest]), folder / "base")
    return folder / "base"


@pytest.fixture
def tune(base: Path, tmp_path: Path):
    """Finetunes on rows, which are written to a file where they are a list; returns the folder."""

    def run(rows: list[dict] | Path, *overrides: str, out: str = "run", **options) -> Path:
        file = rows if isinstance(rows, Path) else tmp_path / "rows.jsonl"
        if not isinstance(rows, Path):
            file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        settings = ["train.steps=3", "train.batch_size=8", "train.precision=fp32", "train.threads=1", *overrides]
        finetune(finetune_config(str(base), [str(file)], overrides=settings), tmp_path / out, **options)
        return tmp_path / out

    return run


def refused(call, kind: type[AcornError], *words: str) -> None:
    """The error, which says what, where and how to fix it."""
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.where
    assert caught.value.fix
    for word in words:
        assert word in str(caught.value)


@pytest.mark.fault(103)
@pytest.mark.parametrize("row", [{"text": "no label"}, {"text": "", "label": "pet"}, {"text": "x", "label": ""}])
def test_a_row_that_is_no_example(tune, row: dict) -> None:
    """Fault 103: named by its line, or left out, counted and said."""
    refused(lambda: tune([*LABELED, row]), InputError, "rows.jsonl, line 41")
    notes = Notes()
    assert (tune([*LABELED, row], "data.errors=skip", progress=notes) / "final").is_dir()
    assert any("1 of 41 rows left out" in note for note in notes.notes)


@pytest.mark.fault(103)
def test_a_label_that_training_never_saw(tune, tmp_path: Path) -> None:
    """Fault 103: a held-out label that no training row has."""
    other = tmp_path / "valid.jsonl"
    other.write_text('{"text": "a bird", "label": "bird"}\n')
    refused(lambda: tune(LABELED, f"data.valid_source={other}"), InputError, "'bird'", "valid.jsonl, line 1")


@pytest.mark.fault(104)
def test_columns_of_two_tasks_and_of_none(tune) -> None:
    """Fault 104: both are named; where none fits, what each takes."""
    both = [{**row, "prompt": "a", "completion": "b"} for row in LABELED]
    refused(lambda: tune(both), UsageError, "classify", "complete")
    refused(lambda: tune([{"a": 1}] * 9), InputError, "classify and regress take text and label")


@pytest.mark.fault(105)
def test_an_example_longer_than_the_context(tune) -> None:
    """Fault 105: an answer is never cut; what is dropped or cut is counted."""
    pairs = [{"prompt": f"say {n} ", "completion": "cat"} for n in range(40)]
    long = {"prompt": "say " + "the cat saw " * 40, "completion": "dog"}
    refused(lambda: tune([*pairs, long]), InputError, "rows.jsonl, line 41", "finetune.overlong")
    notes = Notes()
    tune([*pairs, long, {**long, "label": "x", "prompt": "b" * 99}], "finetune.overlong=drop", progress=notes)
    assert any("2 examples" in note and "left out" in note for note in notes.notes)
    answer = {"prompt": "say ", "completion": "the cat saw " * 40}
    refused(lambda: tune([*pairs, answer], "finetune.overlong=cut_prompt", out="b"), InputError, "never cut")
    notes = Notes()
    tune([*LABELED, {"text": "the cat saw " * 40, "label": "pet"}], out="c", progress=notes)
    assert any("cut at the end" in note for note in notes.notes)


@pytest.mark.fault(106)
def test_rows_or_examples_that_changed(tune, tmp_path: Path) -> None:
    """Fault 106: changed rows are refused, damaged examples too; rows that are gone are not needed."""
    out, file = tune(LABELED), tmp_path / "rows.jsonl"
    text = file.read_text()
    file.write_text(text.replace("saw", "ate"))
    refused(lambda: tune(file, "train.steps=4", resume=True), UsageError, "rows.jsonl")
    file.unlink()
    damaged = Path(shutil.copytree(out, tmp_path / "damaged"))
    (damaged / "data" / "train.jsonl").write_text("{}\n")
    refused(lambda: finetune(None, damaged, resume=True, overrides=["train.steps=4"]), DamageError, "train.jsonl")
    assert finetune(None, out, resume=True, overrides=["train.steps=4"]).step == 4


@pytest.mark.fault(107)
def test_runs_and_models_of_another_kind(tune, base: Path) -> None:
    """Fault 107: text from a model that gives labels; a run resumed by the other command."""
    out = tune(LABELED)
    loaded = load(out)
    refused(lambda: generate(loaded.model, loaded.tokenizer, "a", SamplingSettings()), UsageError, "generate")
    refused(lambda: pretrain(None, out, resume=True), UsageError, "acorn finetune --resume")
    refused(lambda: finetune(None, base, resume=True), UsageError, "acorn pretrain --resume")


@pytest.mark.fault(108)
@pytest.mark.parametrize("setting", ["data.clean=wikitext", "finetune.loss_on=all", "finetune.overlong=cut_prompt"])
def test_a_setting_without_an_effect(tune, tmp_path: Path, setting: str) -> None:
    """Fault 108: refused before anything is written."""
    refused(lambda: tune(LABELED, setting), UsageError, setting.partition("=")[0])
    assert not RunFolder(tmp_path / "run").root.exists()


@pytest.mark.fault(119)
def test_more_frozen_than_there_is(tune, tmp_path: Path) -> None:
    """Fault 119: more blocks than the model has; all weights of one whose head is tied; beside adapters."""
    pairs = [{"prompt": f"say {n} ", "completion": "cat"} for n in range(40)]
    refused(lambda: tune(LABELED, "finetune.freeze=2"), UsageError, "1 block", "1 or less")
    refused(lambda: tune(pairs, "finetune.freeze=1", "lora.rank=2"), UsageError, "no blocks are left to freeze")
    refused(lambda: tune(pairs, "finetune.freeze=1"), UsageError, "Nothing would be trained", "leave it out")
    assert not (tmp_path / "run").exists()
    assert (tune(LABELED, "finetune.freeze=1") / "final").is_dir()


@pytest.mark.fault(120)
def test_a_base_without_its_text(base: Path, tmp_path: Path) -> None:
    """Fault 120: refused with replay, on resume too; without, the run says what is not measured."""
    own, rows = Path(shutil.copytree(base, tmp_path / "base")), tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"say {n} ", "completion": "cat"}) + "\n" for n in range(40)))
    settings = ["train.batch_size=8", "train.precision=fp32", "train.threads=1", "train.steps=2"]

    def config_for(model: Path, *more: str):
        return finetune_config(str(model), [str(rows)], overrides=[*settings, *more])

    replay = "finetune.replay=0.2"
    finetune(config_for(own, replay), tmp_path / "replayed")
    shutil.rmtree(own / "data")
    longer = config_for(own, replay, "train.steps=3")
    refused(lambda: finetune(longer, tmp_path / "replayed", resume=True), UsageError, "cannot be replayed")
    notes = Notes()
    finetune(config_for(own), tmp_path / "run", progress=notes)
    assert any("forgets" in note for note in notes.notes)
    assert "base_loss_after" not in read_sealed_json(RunFolder(tmp_path / "run").evaluation)["valid"]
    for model in (own, own / "final", tmp_path / "run"):
        refused(
            lambda named=model: finetune(config_for(named, replay), tmp_path / "other"),
            UsageError,
            "cannot be replayed",
            "finetune.replay",
        )
    assert not (tmp_path / "other").exists()


@pytest.mark.fault(121)
def test_a_word_that_is_no_single_word(tune) -> None:
    """Fault 121: white space inside, or nothing that the tokenizer keeps."""
    words = [{"tokens": ["the", "cat", str(n)], "tags": ["O", "B-PET", "O"]} for n in range(30)]
    spaced = {"tokens": ["the", "old cat"], "tags": ["O", "O"]}
    refused(lambda: tune([*words, spaced]), InputError, "rows.jsonl, line 31", "white space")
    notes = Notes()
    tune([*words, spaced], "data.errors=skip", progress=notes)
    assert any("1 of 31 rows left out" in note for note in notes.notes)


@pytest.mark.fault(115)
def test_labeled_rows_with_a_label_that_the_model_does_not_know(tune, tmp_path: Path) -> None:
    """Fault 115: named with its line; under data.errors=skip the row is left out and counted."""
    loaded = load(tune(LABELED))
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "a cat", "label": "pet"}\n{"text": "a bird", "label": "bird"}\n')
    origin, runtime, notes = origin_of(loaded), runtime_for_inference("cpu", "fp32"), Notes()

    def score(*overrides: str) -> dict:
        return evaluate_examples(loaded, origin, "classify", runtime, notes, sources=[str(other)], overrides=overrides)

    refused(score, InputError, "'bird'", "other.jsonl, line 2")
    assert score("data.errors=skip")["examples"] == 1
    assert any("1 of 2 rows left out" in note for note in notes.notes)


@pytest.mark.fault(122)
def test_a_baseline_of_a_run_that_replays_its_bases_text(base: Path, tmp_path: Path) -> None:
    """Fault 122: refused before anything is written."""
    config = finetune_config(str(base), [str(tmp_path / "rows.jsonl")], overrides=["finetune.replay=0.2"])
    refused(lambda: finetune_with_baseline(config, tmp_path / "run"), UsageError, "--baselines", "finetune.replay")
    assert not RunFolder(tmp_path / "run").root.exists()
