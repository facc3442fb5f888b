"""Whole finetuning runs: from rows to a finished folder; interrupted, resumed, moved, refused."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from acorn.checkpoint.integrity import verify_run
from acorn.checkpoint.load import load
from acorn.config_files import load_run_config
from acorn.errors import DamageError, InputError, UsageError
from acorn.evaluate.predict import predict
from acorn.evaluate.predict_tags import predict_tags
from acorn.export.card import card_of
from acorn.files import read_sealed_json
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.report.metrics_log import read_metrics, read_samples
from acorn.run.example_evaluation import evaluate_examples, origin_of, task_to_score
from acorn.run.finetune import finetune
from acorn.run.finetune_config import finetune_config
from acorn.run.initial_model import load_initial_model
from acorn.run.lifecycle import RunResult
from acorn.run.pretrain import pretrain
from acorn.run_folder import RunFolder
from acorn.runtime.choose import runtime_for_inference
from acorn.text.examples import Labeled, Message
from acorn.tokenizer.chat_format import ChatFormat
from acorn.train.watcher import Unwatched

WORDS = ["cat", "dog", "bird", "red", "old", "house", "tree"]
CLOCK = ("seconds", "tokens_per_second", "mfu")
ANSWERS = ["complete", "chat"]
TASKS = [*ANSWERS, "classify", "several", "regress", "tag"]


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


class KillAt(Unwatched):
    """Kills a run after a step was logged."""

    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, record, done, left) -> None:
        if record["step"] == self._step:
            raise Killed


class Notes:
    """A progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def at(self, *progress: object) -> None: ...

    def end(self, task: str) -> None: ...


@pytest.fixture(scope="session")
def base(tmp_path_factory, text_file: Path) -> Path:
    """A tiny language model whose vocabulary has the tokens of chat."""
    from acorn.config_files import load_config

    sizes = ["tokenizer.vocab_size=320", "model.n_layer=2", "model.n_embd=32", "model.block_size=32"]
    rest = ["train.steps=3", "train.batch_size=4", "train.eval_every=0", "train.save_every=0", "train.threads=1"]
    exact = ["train.precision=fp32", "train.compile=false", "train.sample_tokens=4"]
    out = tmp_path_factory.mktemp("base") / "base"
    pretrain(load_config("small", [f"data.source={text_file}", *sizes, *rest, *exact]), out)
    return out


@pytest.fixture(scope="session")
def rows(tmp_path_factory) -> dict[str, Path]:
    """Task -> a file of 60 rows, the same each time."""
    draw, folder = random.Random(0), tmp_path_factory.mktemp("rows")
    pairs = [(f"say {draw.choice(WORDS)} {number}", draw.choice(WORDS)) for number in range(60)]
    of_task = {
        "complete": [{"prompt": f"{prompt}: ", "completion": answer} for prompt, answer in pairs],
        "chat": [{"messages": [{"role": "user", "content": p}, {"role": "assistant", "content": a}]} for p, a in pairs],
    }
    texts = [f"{' '.join(draw.choices(WORDS, k=4))} {number}" for number in range(60)]
    of_task |= {
        "classify": [{"text": text, "label": "pet" if "cat" in text else "none"} for text in texts],
        "several": [{"text": text, "label": [word for word in ("cat", "dog") if word in text]} for text in texts],
        "regress": [{"text": text, "label": 40.5 * text.count("o")} for text in texts],
    }
    of_task["tag"] = [
        {"tokens": text.split(), "tags": ["B-PET" if word in ("cat", "dog") else "O" for word in text.split()]}
        for text in texts
    ]
    files = {task: folder / f"{task}.jsonl" for task in of_task}
    for task, records in of_task.items():
        files[task].write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return files


@pytest.fixture
def tune(base: Path, rows: dict[str, Path]):
    """Finetunes the base for a task, by default with 9 steps."""

    def run(task: str, out: Path, *overrides: str, data: Path | None = None, **options) -> RunResult:
        length = [] if any(o.startswith(("train.steps", "finetune.epochs")) for o in overrides) else ["train.steps=9"]
        small = ["train.batch_size=8", "train.eval_every=3", "train.save_every=4", "train.sample_every=5"]
        exact = ["train.precision=fp32", "train.threads=1", "train.sample_tokens=6", "optimizer.lr=0.01"]
        settings = [*length, *small, *exact, *overrides]
        config = finetune_config(str(base), [str(data or rows[task])], overrides=settings)
        return finetune(config, out, **options)

    return run


def fingerprint(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def assert_equal_runs(one: Path, other: Path, step: int) -> None:
    """Bit for bit: weights, optimizer state, data, the final folder, predictions, metrics but for the clock."""
    first, second = RunFolder(one), RunFolder(other)
    for name in ("model.safetensors", "optimizer.safetensors"):
        tensors = load_file(first.checkpoint(step) / name), load_file(second.checkpoint(step) / name)
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])
    assert fingerprint(first.final) == fingerprint(second.final)
    assert fingerprint(first.data) == fingerprint(second.data)
    assert first.predictions.read_bytes() == second.predictions.read_bytes()
    assert first.evaluation.read_bytes() == second.evaluation.read_bytes()
    metrics = [
        [{key: value for key, value in record.items() if key not in CLOCK} for record in read_metrics(run.metrics)]
        for run in (first, second)
    ]
    assert metrics[0] == metrics[1]
    assert read_samples(first.samples) == read_samples(second.samples)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("finetuned")


@pytest.fixture
def whole(finished: Path, tune):
    """An uninterrupted run for a task, for comparison."""

    def run(task: str, *overrides: str) -> Path:
        out = finished / "-".join([task, *overrides])
        if not out.exists():
            tune(task, out, *overrides)
        return out

    return run


@pytest.mark.parametrize("task", TASKS)
def test_a_run_leaves_everything_the_contract_names(whole, task: str) -> None:
    run = RunFolder(whole(task))
    names = {"config.toml", "tokenizer.json", "environment.json", "sources.json", "data", "metrics.jsonl"}
    names |= {
        "samples.jsonl",
        "checkpoints",
        "final",
        "evaluation.json",
        "loss.png",
        "report.html",
        "predictions.jsonl",
    }
    assert names <= {path.name for path in run.root.iterdir()}
    assert all(check.whole for check in verify_run(run.root))
    assert load_run_config(run.config).finetune.task == {"several": "classify"}.get(task, task)
    figures = read_sealed_json(run.evaluation)["valid"]
    predictions = [json.loads(line) for line in run.predictions.read_text().splitlines()]
    assert len(predictions) == figures["examples"]
    last = read_metrics(run.metrics)[-1]
    assert last["split"] == "valid"
    assert (run.final / "chat_template.jinja").is_file() == (task == "chat")
    assert (run.root / "confusion.png").is_file() == (task == "classify")
    if task in ANSWERS:
        assert 0 <= figures["ended_rate"] <= 1
        assert last["loss"] == pytest.approx(figures["answer_loss"], rel=1e-6)
    else:
        assert figures["baselines"]
        names = {"several": "micro_f1", "regress": "mean_absolute_error", "tag": "token_accuracy"}
        name = names.get(task, "accuracy")
        assert last[name] == pytest.approx(figures[name])


@pytest.mark.parametrize("task", TASKS)
def test_the_card_of_an_exported_checkpoint_is_that_of_the_final_model(whole, task: str) -> None:
    run = RunFolder(whole(task))
    assert card_of(load(run.root, "last")) == (run.final / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["classify", "several", "regress"])
def test_the_exported_classifier_says_what_the_run_predicted(whole, task: str) -> None:
    """In transformers, which reads final/ alone; and in acorn, from final/ and from the last checkpoint."""
    import transformers

    run = RunFolder(whole(task))
    predictions = [json.loads(line) for line in run.predictions.read_text().splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.final)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(run.final)
    loaded = [load(run.root), load(run.root, "last"), load(run.checkpoint(9))]
    assert {one.task for one in loaded} == {"regress" if task == "regress" else "classify"}
    for prediction in predictions:
        ids = tokenizer(prediction["text"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            outputs = [model(ids).logits[0], *(one.model(ids)[0, -1] for one in loaded)]
        for output in outputs:
            if task == "regress":
                assert output.item() == pytest.approx(prediction["value"], rel=1e-4)
                continue
            odds = output.softmax(-1) if task == "classify" else output.sigmoid()
            named = {model.config.id2label[number]: p for number, p in enumerate(odds.tolist())}
            assert named == pytest.approx(prediction["probabilities"], abs=1e-4)


def test_the_exported_tagger_says_what_the_run_predicted(whole, base: Path, monkeypatch, capsys) -> None:
    """In transformers as the model card reads it, and with the same outputs in acorn, from final/ and a checkpoint."""
    import transformers

    run = RunFolder(whole("tag"))
    predictions = [json.loads(line) for line in run.predictions.read_text().splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.final)
    model = transformers.AutoModelForTokenClassification.from_pretrained(run.final)
    loaded = [load(run.root), load(run.root, "last")]
    assert {one.task for one in loaded} == {"tag"}
    code = (run.final / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(run.final)
    for prediction in predictions:
        ids = tokenizer(" ".join(prediction["tokens"]), return_tensors="pt")["input_ids"]
        ours, lengths = loaded[0].word_text.encode_words([prediction["tokens"]])[0]
        assert ids[0].tolist() == ours
        with torch.no_grad():
            outputs = [model(ids).logits[0], *(one.model(ids)[0] for one in loaded)]
        for output in outputs:
            assert output == pytest.approx(outputs[0], abs=1e-4)
            odds, best = output[lengths].softmax(-1).max(-1)
            assert [model.config.id2label[number] for number in best.tolist()] == prediction["predicted"]
            assert odds.tolist() == pytest.approx(prediction["probabilities"], abs=1e-4)
    sentences, places = [one["tokens"] for one in predictions], ["" for _ in predictions]
    runtime = runtime_for_inference("cpu", "fp32")
    for one in loaded:
        found = predict_tags(one.model, one.word_text, one.labels, sentences, places, runtime)
        assert [one.tags for one in found] == [one["predicted"] for one in predictions]
        for ours, theirs in zip(found, predictions, strict=True):
            assert ours.probabilities == pytest.approx(theirs["probabilities"], abs=1e-4)
    words = predictions[0]["tokens"]
    exec(code.replace('["Anna", "lives", "in", "Paris", "."]', repr(words)), {})
    expected = [f"{word} {tag}" for word, tag in zip(words, predictions[0]["predicted"], strict=True)]
    assert capsys.readouterr().out.splitlines() == expected


def test_words_get_tags_that_depend_on_what_is_before_them(tune, tmp_path: Path) -> None:
    """Of what follows "red", so that the word alone tells nothing: the baseline by words cannot know it."""
    draw, file = random.Random(1), tmp_path / "rows.jsonl"
    rows = [draw.choices(WORDS, k=6) for _ in range(400)]
    tags = [["B-RED" if i and words[i - 1] == "red" else "O" for i in range(6)] for words in rows]
    lines = [json.dumps({"tokens": words, "tags": its}) for words, its in zip(rows, tags, strict=True)]
    file.write_text("\n".join(lines))
    length = ["train.steps=100", "train.batch_size=16", "train.eval_every=0", "train.save_every=0"]
    figures = tune("tag", tmp_path / "run", *length, "optimizer.lr=0.02", data=file).evaluation["valid"]
    assert figures["token_accuracy"] > 0.97
    assert figures["entity_f1"] > 0.9
    assert figures["baselines"]["word_majority"]["token_accuracy"] < 0.9
    assert "Most frequent tag of each word" in (tmp_path / "run" / "report.html").read_text()


def test_conll_columns_are_tagged_sentences(tune, tmp_path: Path, rows: dict[str, Path]) -> None:
    file = tmp_path / "rows.conll"
    sentences = [json.loads(line) for line in rows["tag"].read_text().splitlines()]
    pairs = [zip(sentence["tokens"], sentence["tags"], strict=True) for sentence in sentences]
    file.write_text("\n\n".join("\n".join(f"{word}\tX\t{tag}" for word, tag in one) for one in pairs))
    tune("tag", tmp_path / "run", "train.steps=1", data=file)
    assert load_run_config(tmp_path / "run" / "config.toml").finetune.task == "tag"


@pytest.mark.parametrize("task", ["classify", "several", "regress"])
def test_the_pipeline_of_transformers_predicts_the_same(whole, task: str) -> None:
    """`pipeline("text-classification")` in a batch of mixed lengths, truncation included, and `acorn predict`."""
    import transformers

    run = RunFolder(whole(task))
    loaded = load(run.root)
    texts = ["cat", "the red dog and the old bird", "house " * 60, "橡树"]
    found = predict(loaded.model, loaded.label_text, loaded.labels, texts, runtime_for_inference("cpu", "fp32"))
    assert [one.cut for one in found] == [False, False, True, False]
    pipeline = transformers.pipeline("text-classification", model=str(run.final), device="cpu")
    options = {"function_to_apply": "none"} if task == "regress" else {}
    theirs = pipeline(texts, truncation=True, batch_size=4, top_k=None, **options)
    for one, its in zip(found, theirs, strict=True):
        scores = {entry["label"]: entry["score"] for entry in its}
        ours = {"value": one.value} if task == "regress" else one.probabilities
        assert ours == pytest.approx(scores, abs=1e-4)
        if task == "classify":
            assert one.label == its[0]["label"]


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_gives_the_figures_of_the_end_of_the_run(whole, task: str, rows) -> None:
    """Of the same side, from final/ and from the last checkpoint; of named rows the same as of a side.

    What the model forgot of its base's text is known to the run alone.
    """
    run, runtime = RunFolder(whole(task)), runtime_for_inference("cpu", "fp32")
    stored = read_sealed_json(run.evaluation)["valid"]
    wanted = {name: value for name, value in stored.items() if not name.startswith("base_loss")}
    assert (wanted != stored) == (task in ANSWERS)
    for loaded in (load(run.root), load(run.root, "last")):
        origin = origin_of(loaded)
        name = task_to_score(loaded, origin, [], [], Notes())
        found = evaluate_examples(loaded, origin, name, runtime, Notes())
        assert found.pop("split") == "valid"
        assert_close(found, wanted)
        notes = Notes()
        assert task_to_score(loaded, origin, [str(rows[task])], [], notes) == name
        assert len(notes.notes) == (task in ANSWERS)
    training = evaluate_examples(loaded, origin, name, runtime, Notes(), split="train")
    every = evaluate_examples(loaded, origin, name, runtime, Notes(), sources=[str(rows[task])])
    assert every["examples"] == training["examples"] + wanted["examples"]
    with pytest.raises(UsageError, match="no test side"):
        evaluate_examples(loaded, origin, name, runtime, Notes(), split="test")


def assert_close(found: object, wanted: object) -> None:
    """Equal but for the last digits of floats."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict)
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_close(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for ours, theirs in zip(found, wanted, strict=True):
            assert_close(ours, theirs)
    else:
        assert found == (pytest.approx(wanted, rel=1e-4, abs=1e-5) if isinstance(wanted, float) else wanted)


def test_a_classifier_outside_its_run_is_scored_without_baselines(whole, rows, tmp_path: Path) -> None:
    shutil.copytree(RunFolder(whole("classify")).final, tmp_path / "copy")
    loaded, runtime = load(tmp_path / "copy"), runtime_for_inference("cpu", "fp32")
    origin = origin_of(loaded)
    assert origin.run is None
    found = evaluate_examples(loaded, origin, "classify", runtime, Notes(), sources=[str(rows["classify"])])
    assert found["examples"] == 60
    assert found["baselines"]["majority"] is None
    assert "not inside its run" in found["baselines"]["notes"][0]
    with pytest.raises(UsageError, match="not inside the run"):
        evaluate_examples(loaded, origin, "classify", runtime, Notes())


def test_the_columns_of_rows_decide_what_is_scored_of_a_language_model(whole, rows, base, tmp_path: Path) -> None:
    """Of a base model, a column of text is text; `data.text_field` makes text of any column."""
    both = tmp_path / "both.jsonl"
    both.write_text('{"text": "a", "prompt": "b", "completion": "c"}\n')
    plain = tmp_path / "plain.txt"
    plain.write_text("a text")
    answers, text = load(whole("complete")), load(base)

    def scored(loaded, source: Path, *overrides: str):
        return task_to_score(loaded, origin_of(loaded), [str(source)], overrides, Notes())

    assert [scored(answers, source) for source in (both, plain, rows["chat"])] == ["complete", None, "chat"]
    assert [scored(text, source) for source in (both, plain, rows["complete"])] == [None, None, "complete"]
    assert scored(answers, both, "data.text_field=text") is None
    assert scored(answers, rows["classify"]) is None
    assert task_to_score(text, origin_of(text), [], [], Notes()) is None


def test_values_begin_near_their_size(whole) -> None:
    """The head begins with ridge regression, so that the first validation is no worse than the mean of training."""
    run = RunFolder(whole("regress"))
    first = next(record for record in read_metrics(run.metrics) if record["split"] == "valid")
    mean = read_sealed_json(run.evaluation)["valid"]["baselines"]["mean"]["mean_absolute_error"]
    assert first["mean_absolute_error"] < 1.5 * mean


def test_class_weights_count_a_rare_label_as_much_as_a_frequent_one() -> None:
    from acorn.train.task import balanced_weights

    examples = [Labeled("", label, "") for label in "aaab"]
    weights = balanced_weights(examples, ["a", "b", "c"])
    assert weights == pytest.approx((4 / 6, 2.0, 1.0))
    assert sum(weights["ab".index(example.labels[0])] for example in examples) == pytest.approx(4)


@pytest.mark.parametrize(
    ("task", "steps"),
    [
        *((task, (2, 3, 8)) for task in TASKS),  # before the first save, twice, and after it
        ("complete", (5,)),
        *(pytest.param(task, (5,), marks=pytest.mark.slow) for task in TASKS if task != "complete"),
    ],
)
def test_killed_and_resumed_is_bit_identical(whole, tune, tmp_path: Path, task: str, steps: tuple[int, ...]) -> None:
    for step in steps:
        with pytest.raises(Killed):
            tune(task, tmp_path / "run", resume=True, watcher=KillAt(step))
    assert tune(task, tmp_path / "run", resume=True).step == 9
    assert_equal_runs(whole(task), tmp_path / "run", 9)
    assert tune(task, tmp_path / "run", resume=True).was_complete


def test_dropout_is_a_function_of_the_step(whole, tune, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        tune("complete", out, "model.dropout=0.2", watcher=KillAt(5))
    tune("complete", out, "model.dropout=0.2", resume=True)
    assert_equal_runs(whole("complete", "model.dropout=0.2"), out, 9)


@pytest.mark.parametrize("task", ["chat", "classify", pytest.param("tag", marks=pytest.mark.slow)])
def test_adapters_are_trained_beside_frozen_weights(whole, tune, tmp_path: Path, base: Path, task: str) -> None:
    """Killed and resumed bit for bit, with dropout of their own; the weights of the base stay, and final/ is merged."""
    lora = ("lora.rank=2", "lora.dropout=0.1")
    with pytest.raises(Killed):
        tune(task, tmp_path / "run", *lora, watcher=KillAt(6))
    tune(task, tmp_path / "run", *lora, resume=True)
    assert_equal_runs(whole(task, *lora), tmp_path / "run", 9)
    weights = load_file(RunFolder(tmp_path / "run").checkpoint(9) / "model.safetensors")
    before = dict(load(base).model.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in before.items())
    assert any(name.endswith("lora_a") for name in weights)
    merged, last = (dict(load(tmp_path / "run", which).model.named_parameters()) for which in (None, "last"))
    heads = {"classify": {"score.weight"}, "tag": {"score.weight", "score.bias"}}  # of zeros, which transformers has
    assert merged.keys() - before.keys() == heads.get(task, set())
    assert not torch.equal(merged["blocks.0.mlp.up_proj.weight"], before["blocks.0.mlp.up_proj.weight"])
    assert all(torch.equal(merged[name], last[name]) for name in last)
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()
    assert all(check.whole for check in verify_run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("task", "frozen"),
    [
        ("classify", 2),
        ("complete", 1),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("classify", 1), ("regress", 2), ("chat", 1))),
    ],
)
def test_frozen_parts_stay_as_the_base_has_them(whole, tune, tmp_path: Path, base: Path, task, frozen: int) -> None:
    """Bit for bit in final/, and without optimizer state; killed and resumed bit for bit. What is above them learns."""
    setting, notes = f"finetune.freeze={frozen}", Notes()
    with pytest.raises(Killed):
        tune(task, tmp_path / "run", setting, watcher=KillAt(6), progress=notes)
    tune(task, tmp_path / "run", setting, resume=True)
    assert_equal_runs(whole(task, setting), tmp_path / "run", 9)
    run, before = RunFolder(tmp_path / "run"), dict(load(base).model.named_parameters())
    after = dict(load(run.root).model.named_parameters())
    below = ("token_embedding", "blocks.0.", *(["blocks.1.", "final_norm"] if frozen == 2 else []))
    same = {name for name in after if name in before and torch.equal(after[name], before[name])}
    assert same == {name for name in after if name.startswith(below)}
    state = load_file(run.checkpoint(9) / "optimizer.safetensors")
    assert {name.rpartition(".")[0] for name in state} == after.keys() - same
    kept = "everything but the head" if frozen == 2 else "the embeddings and the first 1 of 2 blocks"
    assert f"Not trained (finetune.freeze): {kept}." in notes.notes
    assert f"with {kept} frozen" in run.report.read_text()
    assert kept in (run.final / "README.md").read_text()


@pytest.mark.parametrize(("task", "lora"), [("complete", 0), ("chat", 2)])
def test_replayed_text_is_the_same_after_a_kill(whole, tune, tmp_path: Path, task: str, lora: int) -> None:
    settings = ["finetune.replay=0.3", f"lora.rank={lora}"]
    for step in (2, 5):
        with pytest.raises(Killed):
            tune(task, tmp_path / "run", *settings, resume=True, watcher=KillAt(step))
    tune(task, tmp_path / "run", *settings, resume=True)
    assert_equal_runs(whole(task, *settings), tmp_path / "run", 9)
    assert whole(task) != whole(task, *settings)
    last = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["split"] == "train"][-1]
    examples = len((tmp_path / "run" / "data" / "train.jsonl").read_text().splitlines())
    assert last["epoch"] == pytest.approx((9 * 8 - 21) / examples)  # 21 of 72 samples are windows


def test_what_is_forgotten_is_measured(whole, base: Path) -> None:
    """Before: what the base's own run measured. After: what evaluating the base's text with final/ gives."""
    from acorn.evaluate.run_data import shards_of
    from acorn.evaluate.validation import score

    loaded = load(whole("complete"))
    figures = read_sealed_json(RunFolder(whole("complete")).evaluation)["valid"]
    own = read_sealed_json(RunFolder(base).evaluation)["valid"]
    assert figures["base_loss_before"] == pytest.approx(own["loss_per_token"], rel=1e-6)
    total, count = score(loaded.model, shards_of(base, loaded.tokenizer).tokens("valid"), context=32)
    assert figures["base_loss_after"] == pytest.approx(total / count, rel=1e-6)
    assert figures["base_loss_after"] > figures["base_loss_before"]
    report = (whole("complete") / "report.html").read_text()
    assert "Loss on the base&#x27;s text after finetuning" in report or "base's text after finetuning" in report


def test_replayed_text_at_least_halves_what_is_forgotten(tmp_path: Path) -> None:
    """With a base that has something to forget, and rows that are unlike its text."""
    from acorn.config_files import load_config

    exact = ["train.threads=1", "train.precision=fp32", "train.compile=false"]
    quiet = ["train.eval_every=0", "train.save_every=0", "train.sample_every=0", *exact]
    sizes = ["tokenizer.vocab_size=300", "model.n_layer=1", "model.n_embd=32", "model.block_size=32"]
    names, text = ["An oak", "The elm", "A birch", "My pine"], tmp_path / "trees.txt"
    text.write_text("".join(f"{names[n % 4]} stands by the {names[n % 3].lower()} of {n % 7}.\n" for n in range(900)))
    length = ["train.steps=120", "train.batch_size=8"]
    pretrain(load_config("small", [f"data.source={text}", *sizes, *length, *quiet]), tmp_path / "base")
    draw, file, rises = random.Random(0), tmp_path / "rows.jsonl", []
    rows = [(f"{draw.choice(WORDS)} {n}? ", draw.choice("XYZ")) for n in range(80)]
    file.write_text("".join(json.dumps({"prompt": a, "completion": b}) + "\n" for a, b in rows))
    for share in (0.0, 0.25):
        overrides = [*quiet, "train.steps=40", "train.batch_size=8", "optimizer.lr=0.003", f"finetune.replay={share}"]
        config = finetune_config(str(tmp_path / "base"), [str(file)], overrides=overrides)
        figures = finetune(config, tmp_path / f"run-{share}").evaluation["valid"]
        rises.append(figures["base_loss_after"] - figures["base_loss_before"])
    assert rises[0] > 0.1
    assert rises[1] <= rises[0] / 2


def test_the_base_is_freed_while_training(tune, tmp_path: Path, monkeypatch) -> None:
    from acorn.run import lifecycle

    loaded = []

    def load_and_keep(*arguments):
        config, initial = load_initial_model(*arguments)
        loaded.append(initial)
        return config, initial

    class AtStep(Unwatched):
        def step(self, record, done, left) -> None:
            released.append(loaded[0].is_released)

    released: list[bool] = []
    monkeypatch.setattr(lifecycle, "load_initial_model", load_and_keep)
    tune("classify", tmp_path / "run", "train.steps=1", watcher=AtStep())
    assert released == [True]


def test_a_target_that_is_no_layer_is_refused(tune, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no linear layer c_attn"):
        tune("complete", tmp_path / "run", "lora.rank=2", 'lora.targets=["c_attn"]')


def test_a_chat_model_ends_its_answers(tune, tmp_path: Path, rows: dict[str, Path]) -> None:
    """Greedy answers of the finished model end by themselves, with the end of a turn that a base never draws."""
    tune("chat", tmp_path / "run", "train.steps=60")
    loaded = load(tmp_path / "run")
    format = ChatFormat(loaded.tokenizer)
    prompts = [format.encode([Message("user", f"say {w} 3", False)], to_answer=True).ids for w in WORDS]
    settings = SamplingSettings(greedy=True, max_new_tokens=20)
    answers = generate(loaded.model, loaded.tokenizer, prompts, settings, end_ids=loaded.end_ids)
    assert {answer.finish_reason for answer in answers} == {"eos"}
    assert {answer.new_ids[-1] for answer in answers} == {format.end_ids[0]}
    assert all(answer.completion in WORDS for answer in answers)


def test_epochs_set_the_steps_and_more_of_them_go_on(tune, tmp_path: Path) -> None:
    out, notes = tmp_path / "run", Notes()
    tune("complete", out, "finetune.epochs=1")
    config = load_run_config(out / "config.toml")
    examples = len((out / "data" / "train.jsonl").read_text().splitlines())
    assert (config.finetune.epochs, config.train.steps) == (1, -(-examples // 8))
    tune("complete", out, "finetune.epochs=2", resume=True, progress=notes)
    assert load_run_config(out / "config.toml").train.steps == -(-2 * examples // 8)
    assert any("finetune.epochs: 1.0 -> 2.0" in note for note in notes.notes)
    with pytest.raises(UsageError, match="steps"):
        tune("complete", out, "finetune.epochs=0.5", resume=True)


def test_a_run_resumes_from_its_folder_without_base_or_rows(tune, whole, base, rows, tmp_path: Path) -> None:
    """Moved away from both, with nothing named but the folder."""
    own = Path(shutil.copytree(rows["chat"].parent, tmp_path / "rows")) / "chat.jsonl"
    with pytest.raises(Killed):
        tune("chat", tmp_path / "run", data=own, watcher=KillAt(6))
    shutil.rmtree(own.parent)
    moved = Path(shutil.move(tmp_path / "run", tmp_path / "moved"))
    assert finetune(None, moved, resume=True).step == 9
    assert fingerprint(moved / "final").keys() == fingerprint(whole("chat") / "final").keys()


def test_rows_that_changed_are_refused_on_resume(tune, tmp_path: Path, rows: dict[str, Path]) -> None:
    own = Path(shutil.copy(rows["complete"], tmp_path / "rows.jsonl"))
    with pytest.raises(Killed):
        tune("complete", tmp_path / "run", data=own, watcher=KillAt(6))
    own.write_text(own.read_text().replace("cat", "cow"))
    with pytest.raises(UsageError, match="have changed since"):
        tune("complete", tmp_path / "run", data=own, resume=True)


def test_data_that_are_gone_are_read_again_and_damaged_ones_are_refused(tune, whole, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        tune("complete", out, watcher=KillAt(6))
    before = fingerprint(out / "data")
    shutil.rmtree(out / "data")
    with pytest.raises(Killed):
        tune("complete", out, resume=True, watcher=KillAt(7))
    assert fingerprint(out / "data") == before
    file = out / "data" / "train.jsonl"
    file.write_text(file.read_text().replace("say", "SAY", 1))
    with pytest.raises(DamageError, match="examples are damaged"):
        tune("complete", out, resume=True)
    assert not all(check.whole for check in verify_run(out))


def test_the_kinds_of_runs_are_not_mixed_up(tune, base: Path, whole, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run of acorn pretrain"):
        finetune(None, base, resume=True)
    with pytest.raises(UsageError, match="run of acorn finetune"):
        pretrain(None, whole("complete"), resume=True)


IDLE = ["data.clean=wikitext", "tokenizer.vocab_size=400", "schedule.short_context=16", "data.shards=x"]


@pytest.mark.parametrize("setting", [*IDLE, "finetune.class_weights=balanced", "finetune.overlong=cut"])
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(tune, tmp_path: Path, setting: str) -> None:
    with pytest.raises(UsageError):
        tune("complete", tmp_path / "run", setting)
    assert not (tmp_path / "run").exists()


def test_a_long_example_is_refused_by_name(tune, tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{'word ' * n}", "completion": "a"}) + "\n" for n in range(2, 60)))
    with pytest.raises(InputError, match="more than the context of 32") as refused:
        tune("complete", tmp_path / "run", data=file)
    assert "long.jsonl, line" in (refused.value.where or "")
    notes = Notes()
    tune("complete", tmp_path / "other", "finetune.overlong=cut_prompt", data=file, progress=notes)
    assert any("cut at the beginning" in note for note in notes.notes)
