"""The public Python API, used as in the tutorial."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_acorn

import acorn
from acorn.cli import generate as verb

SMALL = [
    "tokenizer.vocab_size=300",
    "model.n_layer=1",
    "model.n_embd=16",
    "model.block_size=16",
    "train.steps=3",
    "train.batch_size=2",
    "train.compile=false",
    "train.threads=1",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("".join(f"Line {n} of {n * n}.\n" for n in range(900)))
    return path


def test_the_steps_of_the_tutorial(corpus: Path, tmp_path: Path) -> None:
    tokenizer = acorn.Tokenizer.train([str(corpus)], kind="bpe", vocab_size=290)
    assert isinstance(tokenizer, acorn.Tokenizer)
    assert tokenizer.decode(tokenizer.encode_prompt("Line 7 é")) == "Line 7 é"
    run = acorn.pretrain("small", overrides=[f"data.source={corpus}", *SMALL], out=tmp_path / "mine")
    assert run.step == 3
    assert run.evaluation["valid"]["bits_per_byte"] > 0
    model = acorn.load(run.folder)
    text = model.generate("Line 1", max_new_tokens=10, seed=0)
    assert text.startswith("Line 1")
    assert model.generate("Line 1", max_new_tokens=10, seed=0) == text
    stopped = model.generations(["Line", "Of"], max_new_tokens=30, seed=1, stop="e", ignore_eos=True)
    assert [generation.prompt for generation in stopped] == ["Line", "Of"]
    assert all("e" not in generation.completion for generation in stopped)


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> acorn.Run:
    out = tmp_path_factory.mktemp("runs") / "mine"
    return acorn.pretrain("small", [f"data.source={corpus}", *SMALL], out, quiet=True)


@pytest.fixture
def model(run: acorn.Run) -> acorn.LanguageModel:
    return acorn.load(run.folder)


def test_python_and_the_command_have_the_same_defaults() -> None:
    """Names and defaults of the command's options, of generate's parameters and of SamplingSettings are equal."""
    fields = {field.name: field.default for field in dataclasses.fields(acorn.SamplingSettings)}
    assert (fields["temperature"], fields["top_k"], fields["max_new_tokens"]) == (0.8, 50, 200)
    signature = inspect.signature(acorn.LanguageModel.generate, eval_str=True)
    named = {name: p for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert {name: parameter.default for name, parameter in named.items()} == fields
    assert all(parameter.annotation not in (Any, p.empty) for parameter in named.values() for p in [parameter])
    command = inspect.signature(verb.generate)
    assert {name: command.parameters[name].default or value for name, value in fields.items()} == fields


def test_python_and_the_command_generate_equal_text(model: acorn.LanguageModel, run: acorn.Run) -> None:
    done = run_acorn("generate", run.folder, "--prompt", "Line 1", "--seed", 3, "--max-new-tokens", 20)
    assert done.returncode == 0, done.stderr
    assert model.generate("Line 1", seed=3, max_new_tokens=20) + "\n" == done.stdout


def test_an_unknown_setting_is_refused_with_a_suggestion(model: acorn.LanguageModel) -> None:
    with pytest.raises(acorn.AcornError, match="'temprature'; did you mean temperature") as caught:
        model.generate("Line", temprature=1.0)
    assert caught.value.exit_code == 2
    with pytest.raises(acorn.AcornError, match="did you mean max_new_tokens"):
        model.generations(["Line"], max_tokens=3)
    with pytest.raises(acorn.AcornError, match=r"top_k cannot be 2\.5"):
        model.generate("Line", top_k=2.5)
    with pytest.raises(acorn.AcornError, match="stop cannot be 5"):
        model.generate("Line", stop=5)


def test_settings_are_given_as_an_object_or_by_name(model: acorn.LanguageModel) -> None:
    settings = acorn.SamplingSettings(max_new_tokens=9, seed=2, ignore_eos=True)
    whole = model.generate("Line", max_new_tokens=9, seed=2, ignore_eos=True)
    (given,) = model.generations("Line", settings)  # one prompt, not four
    (named,) = model.generations(["Line"], seed=2, max_new_tokens=9, ignore_eos=True)
    (changed,) = model.generations(["Line"], settings, max_new_tokens=4)
    assert given.text == named.text == whole
    assert changed.new_ids == given.new_ids[:4]


def test_a_model_is_finetuned_and_predicts(run: acorn.Run, tmp_path: Path) -> None:
    """With the probabilities of `acorn predict`; what the model does not do is refused."""
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"Line {n},{'even' if n % 2 == 0 else 'odd'}\n" for n in range(30)))
    settings = ["train.steps=2", "train.batch_size=4", "train.threads=1", "train.precision=fp32"]
    tuned = acorn.finetune(run.folder, rows, tmp_path / "tuned", task="classify", overrides=settings, quiet=True)
    assert tuned.evaluation["valid"]["accuracy"] >= 0
    model = acorn.load(tuned.folder)
    assert (model.task, model.labels) == ("classify", ("even", "odd"))
    texts = ["Line 3", "Line 4 of 16 and a long rest that does not fit"]
    found = model.predict(texts)
    assert [one.cut for one in found] == [False, True]
    [alone] = model.predict("Line 3")
    assert (alone.label, alone.text) == (found[0].label, "Line 3")
    assert alone.probabilities == pytest.approx(found[0].probabilities, abs=1e-5)  # matmuls of other sizes
    done = run_acorn("predict", tuned.folder, "--text", *texts, "--json")
    printed = json.loads(done.stdout)["results"]
    assert [one["label"] for one in printed] == [one.label for one in found]
    assert printed[0]["probabilities"] == pytest.approx(found[0].probabilities, abs=1e-6)
    assert model.predict([]) == []
    for wrong in (
        lambda: model.generate("Line"),
        lambda: acorn.load(run.folder).predict("a"),
        lambda: model.predict(5),
    ):
        with pytest.raises(acorn.AcornError) as caught:
            wrong()
        assert caught.value.exit_code == 2
    with pytest.raises(acorn.AcornError, match="A text is empty"):
        model.predict(["a", " "])
    with pytest.raises(acorn.AcornError, match=r"did you mean train\.steps"):
        acorn.finetune(run.folder, rows, tmp_path / "other", overrides="train.stepz=5")


def test_a_tagger_predicts_from_words_and_from_texts(run: acorn.Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    tagged = [{"tokens": ["Line", str(n)], "tags": ["O", "EVEN" if n % 2 == 0 else "ODD"]} for n in range(30)]
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in tagged))
    settings = ["train.steps=2", "train.batch_size=4", "train.threads=1", "train.precision=fp32"]
    model = acorn.load(acorn.finetune(run.folder, rows, tmp_path / "tuned", overrides=settings, quiet=True).folder)
    assert model.task == "tag"
    found = model.predict([["Line", "3"], "Line  4"])
    assert [one.tokens for one in found] == [["Line", "3"], ["Line", "4"]]
    assert model.predict("Line 3") == model.predict([["Line", "3"]])
    assert all(set(one.tags or []) <= {"O", "EVEN", "ODD"} for one in found)
    assert model.predict([]) == []
    for wrong, said in (
        ([["a b"]], "not one word"),
        ([[]], "is empty"),
        (["a", "Line " * 99], "more than the context"),
    ):
        with pytest.raises(acorn.AcornError, match=said) as caught:
            model.predict(wrong)
        assert caught.value.where == f"texts[{len(wrong) - 1}]"
    for wrong in (5, [5], [[5]]):
        with pytest.raises(acorn.AcornError) as caught:
            model.predict(wrong)
        assert caught.value.exit_code == 2


def test_a_single_string_is_a_list_of_one(corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not one source or override per character: `/` and `.` would be read as folders."""
    monkeypatch.chdir(tmp_path)
    wanted = acorn.Tokenizer.train([str(corpus)], vocab_size=290)
    for sources in (str(corpus), corpus, [corpus]):
        tokenizer = acorn.Tokenizer.train(sources, vocab_size=290)
        assert tokenizer.fingerprint == wanted.fingerprint
    assert wanted.encode_documents("Line 7") == wanted.encode_documents(["Line 7"])
    assert wanted.measure("Line 7 of 49.") == wanted.measure(["Line 7 of 49."])
    with pytest.raises(acorn.AcornError, match="No text is named"):  # it was taken: the preset alone has a length too
        acorn.pretrain("small", "train.steps=5")
    with pytest.raises(acorn.AcornError, match=r"did you mean train\.steps"):
        acorn.pretrain("small", "train.stepz=5")


@pytest.mark.parametrize("sources", [[], "", [""], ["", "a.txt"]])
def test_an_empty_source_is_refused(sources: list[str] | str, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not mean the current folder, which contains a text here."""
    monkeypatch.chdir(corpus.parent)
    with pytest.raises(acorn.AcornError, match=r"names no text|No text is named") as caught:
        acorn.Tokenizer.train(sources, vocab_size=290)
    assert caught.value.exit_code == 2


def test_advice_about_a_text_can_be_followed(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"body": "line {n} of {n * n}"}}\n' for n in range(200)))
    with pytest.raises(acorn.AcornError, match="it has 'body'") as caught:
        acorn.Tokenizer.train(path)
    assert "set data.text_field" in caught.value.fix
    assert acorn.Tokenizer.train(path, vocab_size=290, overrides="data.text_field=body").vocab_size == 290
    with pytest.raises(acorn.AcornError, match=r"data\.text_feld; did you mean data\.text_field"):
        acorn.Tokenizer.train(path, overrides=["data.text_feld=body"])


def test_errors_are_acorns_own(tmp_path: Path) -> None:
    with pytest.raises(acorn.AcornError) as caught:
        acorn.load(tmp_path / "nowhere")
    assert caught.value.exit_code == 2
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = acorn.nothing


def test_import_does_not_load_torch_and_has_all_names() -> None:
    script = "import acorn, sys; print('torch' in sys.modules, set(acorn.__all__) <= set(dir(acorn)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_python_dash_m_runs_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "acorn", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"acorn {acorn.__version__}\n"


def test_the_repr_of_a_model_describes_it(model: acorn.LanguageModel) -> None:
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    said = (
        f"<acorn.LanguageModel: modern, 1 layer of width 16, {parameters:,} parameters, context 16, bpe of 300, on cpu>"
    )
    assert repr(model) == said
    assert repr(model.tokenizer) == "<Tokenizer: bpe of 300 entries, lossless>"


def test_dir_lists_only_public_names() -> None:
    assert dir(acorn) == sorted([*acorn.__all__, "__version__"])
    assert all(getattr(acorn, name) is not None for name in dir(acorn))


@pytest.mark.parametrize("prompt", [None, 5, b"Line", ["Line", "Of"], []])
def test_a_prompt_that_is_not_a_string_is_refused(model: acorn.LanguageModel, prompt: Any) -> None:
    """`generate` would return only the text of the first of several prompts."""
    with pytest.raises(acorn.AcornError, match="A prompt cannot be") as caught:
        model.generate(prompt, max_new_tokens=1)
    assert caught.value.exit_code == 2


def test_invalid_settings_are_refused(model: acorn.LanguageModel) -> None:
    for prompts, settings in ((None, None), ("Line", 5), ("Line", {"top_k": 5})):
        with pytest.raises(acorn.AcornError, match="cannot be"):
            model.generations(prompts, settings)
    with pytest.raises(acorn.AcornError, match="temperature cannot be 1000"):
        model.generate("Line", temperature=10**400)


@pytest.mark.parametrize("device", ["cuda", "mps", "", "tpu", None])
def test_unavailable_devices_are_refused(run: acorn.Run, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(acorn.AcornError) as caught:
        acorn.load(run.folder, device=device)
    assert (caught.value.exit_code, caught.value.where) == (2, "device")
    assert acorn.load(run.folder, device="auto").model.head.weight.device.type == "cpu"


@pytest.mark.parametrize("path", ["", "a\0", 5, b"x", ["x"]])
def test_invalid_paths_are_refused(
    path: Any, run: acorn.Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called in a run folder, which an empty string must not name; nothing is written there."""
    monkeypatch.chdir(run.folder)
    calls = [
        lambda: acorn.load(path),
        lambda: acorn.load(run.folder, path),
        lambda: acorn.pretrain("small", [f"data.source={corpus}", *SMALL], out=path, quiet=True),
        lambda: acorn.pretrain(path, [f"data.source={corpus}", *SMALL], out=tmp_path / "new", quiet=True),
        lambda: acorn.load(run.folder).tokenizer.save(path),
    ]
    before = sorted(run.folder.rglob("*"))
    for call in calls:
        with pytest.raises(acorn.AcornError) as caught:
            call()
        assert caught.value.exit_code == 2
    assert sorted(run.folder.rglob("*")) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overrides", [None, 5, [None], b"train.steps=3", [b"train.steps=3"]])
def test_overrides_that_are_not_strings_are_refused(overrides: Any, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(acorn.AcornError, match="overrides cannot be"):
        acorn.pretrain("small", overrides, out=tmp_path / "new", quiet=True)
    with pytest.raises(acorn.AcornError, match="overrides cannot be"):
        acorn.Tokenizer.train(corpus, vocab_size=290, overrides=overrides)


@pytest.mark.parametrize("texts", [None, 5, b"x", [None], [5], {}])
def test_sources_and_texts_that_are_not_strings_are_refused(texts: Any, model: acorn.LanguageModel) -> None:
    with pytest.raises(acorn.AcornError, match="cannot be"):
        acorn.Tokenizer.train(texts)
    tokenizer = acorn.Tokenizer.from_json(model.tokenizer.to_json())
    assert isinstance(tokenizer, acorn.Tokenizer)
    with pytest.raises(acorn.AcornError, match="cannot be"):
        tokenizer.measure(texts)


@pytest.mark.parametrize("ids", [5, "ab", [1.5], [-1], [1 << 40], None, ["a"]])
def test_decode_refuses_what_is_no_list_of_ids(model: acorn.LanguageModel, ids: Any) -> None:
    with pytest.raises(acorn.AcornError, match="The ids cannot be") as error:
        model.tokenizer.decode(ids)
    assert error.value.exit_code == 2
    assert "give a list of token ids" in str(error.value)
    assert model.tokenizer.decode(torch.tensor([40, 41])) == model.tokenizer.decode([40, 41])


@pytest.mark.parametrize(
    ("call", "wrong", "right"),
    [(acorn.Tokenizer.train, "vocabsize", "vocab_size"), (acorn.pretrain, "override", "overrides"),
     (acorn.load, "checkpoints", "checkpoint")],
)  # fmt: skip
def test_unknown_arguments_are_refused_with_a_suggestion(call: Any, wrong: str, right: str) -> None:
    with pytest.raises(acorn.AcornError, match=f"There is no argument '{wrong}'; did you mean {right}?") as error:
        call("runs/none", **{wrong: 1})
    assert error.value.exit_code == 2
    known = [name for name in inspect.signature(call).parameters if name != "unknown"]
    assert str(error.value).endswith(", ".join(known))
