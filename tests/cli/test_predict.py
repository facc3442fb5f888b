"""`acorn predict`: lines for people, one JSON object, rows of files, and what is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from small_models import LINES, classifier_for, model_for

from acorn.checkpoint.load import load
from acorn.checkpoint.model_folder import write_model_folder
from acorn.cli.stdout import Stdout
from acorn.evaluate.predict import predict
from acorn.model.label_head import HeadSpec
from acorn.runtime.choose import runtime_for_inference
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

LABELS = ("größer", "b", "c")
TEXTS = [
    "An acorn fell.",
    "It grew anyway, and the winters were longer then.",
    "naïve café 橡树",
    "a",
    "b",
    "Walking, talked",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: iter(LINES), "bpe", 300)


@pytest.fixture(scope="module")
def folders(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind of head -> a model folder outside any run; `text`: a language model."""
    out, texts = tmp_path_factory.mktemp("models"), LabelText(tokenizer).tokenizer
    for kind, count in (("class", 3), ("labels", 3), ("value", 1), ("tag", 3)):
        model = classifier_for(texts, HeadSpec(kind, count, bias=kind == "tag"), n_layer=1, block_size=32)
        write_model_folder(out / kind, model, texts, "# Card\n", labels=LABELS[:count])
    write_model_folder(out / "text", model_for(tokenizer, "gpt2", n_layer=1), tokenizer, "# Card\n")
    return {path.name: path for path in out.iterdir()}


@pytest.fixture(scope="module")
def expected(folders: dict[str, Path]) -> list[dict]:
    loaded = load(folders["class"])
    runtime = runtime_for_inference("cpu", "fp32")
    return [one.record for one in predict(loaded.model, loaded.label_text, loaded.labels, TEXTS, runtime)]


def results(done) -> list[dict]:
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout).values()
    return found


def test_texts_of_the_command_line(acorn, folders: dict[str, Path], expected: list[dict]) -> None:
    found = results(acorn("predict", folders["class"], "--text", *TEXTS, "--json"))
    assert found == expected
    assert [list(one) for one in found] == [["text", "label", "probabilities"]] * len(TEXTS)
    lines = acorn("predict", folders["class"], "--text", *TEXTS).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [one["label"] for one in expected]
    assert all(line.endswith(text) for line, text in zip(lines, TEXTS, strict=True))


def test_only_what_has_a_settings_name_is_refused_among_texts(acorn, folders: dict[str, Path]) -> None:
    texts = ["train.steps=5", "x=5"]  # the first is named by --text itself
    found = results(acorn("predict", folders["class"], "--text", *texts, "--json"))
    assert [one["text"] for one in found] == texts


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "tsv", "parquet", "txt", "jsonl.gz"])
def test_rows_of_files(acorn, folders: dict[str, Path], expected: list[dict], tmp_path: Path, form: str) -> None:
    """Each form gives the same, in the order of the rows; labels that stand beside the texts are not read."""
    rows, path = [{"label": None, "text": text} for text in TEXTS], tmp_path / f"rows.{form}"
    if form == "txt":
        path.write_text("\n\n".join(TEXTS))
    elif form == "parquet":
        pyarrow = pytest.importorskip("pyarrow.parquet")
        pyarrow.write_table(__import__("pyarrow").Table.from_pylist(rows), path)
    elif form in ("csv", "tsv"):
        file = io.StringIO()
        writer = csv.DictWriter(file, ["label", "text"], delimiter="\t" if form == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(file.getvalue())
    else:
        text = json.dumps(rows) if form == "json" else "".join(f"{json.dumps(row)}\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
    done = acorn("predict", folders["class"], "--input", path, "--json")
    assert results(done) == expected
    assert ("Each line is a text" in done.stderr) == (form == "txt")


def test_more_rows_than_are_read_at_once(acorn, folders: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    """Rows are predicted on in parts, and every part gives what it gives alone."""
    from acorn.evaluate import predict as module

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"body": "row {n}"}}\n' for n in range(7)))
    settings = ["finetune.text_field=body", "--json"]
    whole = results(acorn("predict", folders["value"], "--input", path, *settings))
    assert [one["text"] for one in whole] == [f"row {n}" for n in range(7)]
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", 3)
    done = acorn("predict", folders["value"], "--input", path, *settings)
    parts = results(done)
    assert [one["value"] for one in parts] == pytest.approx([one["value"] for one in whole], abs=1e-5)
    assert "Predicting: 7 texts" in done.stderr


SENTENCES = [["An", "acorn", "fell", "."], ["naïve", "café", "橡树"], ["a"]]


@pytest.fixture(scope="module")
def tagged(folders: dict[str, Path]) -> list[dict]:
    """What the network says at the last token of each word, computed one sentence at a time."""
    loaded, found = load(folders["tag"]), []
    for words in SENTENCES:
        ids, last = loaded.word_text.encode_words([words])[0]
        with torch.no_grad():
            odds, best = loaded.model(torch.tensor([ids]))[0, last].softmax(-1).max(-1)
        tags = [LABELS[number] for number in best.tolist()]
        found.append({"tokens": words, "tags": tags, "probabilities": pytest.approx(odds.tolist(), abs=1e-5)})
    return found


def test_tags_of_the_words_of_texts(acorn, folders: dict[str, Path], tagged: list[dict]) -> None:
    texts = ["  ".join(words) for words in SENTENCES]
    found = results(acorn("predict", folders["tag"], "--text", *texts, "--json"))
    assert found == tagged
    lines = acorn("predict", folders["tag"], "--text", *texts).stdout.splitlines()
    assert [[pair.split("/") for pair in line.split()] for line in lines] == [
        [[word, tag] for word, tag in zip(one["tokens"], one["tags"], strict=True)] for one in found
    ]


@pytest.mark.parametrize("form", ["jsonl", "text.jsonl", "csv", "conll", "untagged.conll", "txt"])
def test_tags_of_rows(acorn, folders: dict[str, Path], tagged: list[dict], tmp_path: Path, form: str) -> None:
    path = tmp_path / f"rows.{form}"
    texts = [" ".join(words) for words in SENTENCES]
    if form == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["tokens"], *([json.dumps(words)] for words in SENTENCES)])
    elif form.endswith("conll"):
        tag = "" if form.startswith("untagged") else "\tX"
        path.write_text("\n\n".join("\n".join(f"{word}{tag}" for word in words) for words in SENTENCES))
    elif form == "txt":
        path.write_text("\n".join(texts))
    else:
        rows = [{"text": text} for text in texts] if form == "text.jsonl" else [{"tokens": one} for one in SENTENCES]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = acorn("predict", folders["tag"], "--input", path, "--json")
    assert results(done) == tagged
    assert ("split into words at white space" in done.stderr) == (form == "txt")


@pytest.mark.fault(114)
def test_a_sentence_longer_than_the_context(acorn, folders: dict[str, Path], tmp_path: Path) -> None:
    """Fault 114: it is refused with its place before anything is printed, and never cut: each word gets a tag."""
    path = tmp_path / "rows.txt"
    path.write_text(f"a b\n{'the squirrel ' * 30}\n")
    for settings in ([], ["finetune.overlong=drop"]):
        done = acorn("predict", folders["tag"], "--input", path, *settings, "--json")
        assert (done.returncode, done.stdout) == (3, "")
        assert "rows.txt, line 2" in done.stderr
        assert "more than the context of 32" in done.stderr
    assert acorn("predict", folders["tag"], "--input", path, "finetune.overlong=cut").returncode == 2


def test_several_labels_are_a_list(acorn, folders: dict[str, Path]) -> None:
    for one in results(acorn("predict", folders["labels"], "--text", *TEXTS, "--json")):
        assert one["label"] == [label for label in LABELS if one["probabilities"][label] > 0.5]


@pytest.mark.fault(113)
def test_a_model_that_gives_no_labels(acorn, folders: dict[str, Path]) -> None:
    """Fault 113: a language model is refused, with the command that works; so is a classifier that should generate."""
    done = acorn("predict", folders["text"], "--text", "a")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"acorn generate {folders['text']} --prompt" in done.stderr
    done = acorn("generate", folders["class"], "--prompt", "a")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"acorn predict {folders['class']} --text 'A text.'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "No text is named"),
        (["--text", "a", "--input", "b.txt"], "Both texts and rows"),
        (["--text", " "], "A text is empty"),
        (["--text", "hi", "train.steps=5"], "train.steps has no effect on texts"),
        (["--input", "nowhere.csv"], "no file or folder"),
        (["--input", "rows.jsonl", "finetune.text_feld=a"], "did you mean finetune.text_field"),
        (["--input", "rows.jsonl", "data.dedup=false"], "data.dedup has no effect here"),
    ],
)
def test_wrong_use(acorn, folders: dict[str, Path], arguments: list[str], said: str) -> None:
    done = acorn("predict", folders["class"], *arguments)
    assert done.returncode in (2, 3)
    assert done.stdout == ""
    assert said in done.stderr


@pytest.mark.fault(114)
def test_rows_without_a_text(acorn, folders: dict[str, Path], tmp_path: Path) -> None:
    """Fault 114: named before anything is predicted, or left out, counted and said; the others name their place."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": " "}\n{"body": "b"}\n{"text": "c"}\n')
    done = acorn("predict", folders["class"], "--input", path, "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "rows.jsonl, line 2" in done.stderr
    done = acorn("predict", folders["class"], "--input", path, "data.errors=skip", "--json")
    assert [one["where"].rpartition(", ")[2] for one in results(done)] == ["line 1", "line 4"]
    assert "2 of 4 rows left out" in done.stderr


@pytest.mark.fault(114)
def test_a_text_longer_than_the_context(acorn, folders: dict[str, Path], tmp_path: Path) -> None:
    """Fault 114: its beginning is read, which is counted and said; or it is refused, before anything is printed."""
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "a"}}\n{{"text": "{"the squirrel " * 30}"}}\n')
    done = acorn("predict", folders["class"], "--input", path, "--json")
    short, long = results(done)
    assert "cut" not in short
    assert long["cut"] is True
    assert "1 of 2 texts longer than the context of 32 tokens" in done.stderr
    for how in ("refuse", "drop"):
        done = acorn("predict", folders["class"], "--input", path, f"finetune.overlong={how}", "--json")
        assert (done.returncode, done.stdout) == (3, "")
        assert "rows.jsonl, line 2" in done.stderr


@pytest.mark.parametrize("as_json", [True, False])
def test_letters_that_the_encoding_of_stdout_lacks(folders: dict[str, Path], monkeypatch, as_json: bool) -> None:
    from acorn.cli.app import app

    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Stdout(io.TextIOWrapper(written, encoding="ascii")))
    json_option = ["--json"] if as_json else []
    app(["predict", str(folders["class"]), "--text", "橡树", *json_option], standalone_mode=False)
    sys.stdout.flush()
    text = written.getvalue().decode("ascii")
    if as_json:
        assert json.loads(text)["results"][0]["text"] == "橡树"
    else:
        assert text.rstrip().endswith("\\u6a61\\u6811")


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_precisions_of_the_other_commands(acorn, folders, expected: list[dict], precision: str) -> None:
    found = results(acorn("predict", folders["class"], "--text", *TEXTS, "--precision", precision, "--json"))
    for one, exact in zip(found, expected, strict=True):
        assert one["probabilities"] != exact["probabilities"]
        assert one["probabilities"] == pytest.approx(exact["probabilities"], abs=0.1)
