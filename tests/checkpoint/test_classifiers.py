"""Models with label heads as transformers' classifiers: equal probabilities, names of labels, and the way back."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from other_models import style
from safetensors.torch import load_file, save_file
from small_models import LINES, classifier_for

from acorn.checkpoint.integrity import model_faults, verify_run
from acorn.checkpoint.label_config import from_label_config, label_faults, to_label_config
from acorn.checkpoint.load import LoadedModel, load
from acorn.checkpoint.model_folder import write_model_folder
from acorn.config import ModelConfig
from acorn.errors import DamageError, InputError, UsageError
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

LABELS = ("ham", "spam & <eggs>", "Ж🌰")
HEADS = {
    "class": (HeadSpec("class", 3), LABELS),
    "labels": (HeadSpec("labels", 3), LABELS),
    "value": (HeadSpec("value", 1), ("value",)),
    "tag": (HeadSpec("tag", 3, bias=True), LABELS),
    "tag without bias": (HeadSpec("tag", 3), LABELS),
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "original": {"tied": False},
    "gpt2": {"tied": True},
    "modern": {"n_kv_head": 2, "tied": True},
    "llama": {"architecture": "modern", "qk_norm": False, "tied": False},
}
PREFIX = {"original": "GPT2", "gpt2": "GPT2", "modern": "Qwen3", "llama": "Llama"}
TEXTS = [
    "An acorn fell",
    "Unhappily, the winters were longer then. Walking, talked, walker, talks; the old oak stood where they met.",
    "",
    "<|endoftext|> [UNK] <|EOS|> are words here",
    "Việt Nam, ελιά, дуб, 橡树",
    "a",
]


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    return LabelText(train(lambda: LINES, kind, 400)).tokenizer  # type: ignore[arg-type]


def model_of(architecture: str, head: HeadSpec, kind: str = "bpe") -> GPT:
    return classifier_for(tokenizer_of(kind), head, **{"architecture": architecture, **ARCHITECTURES[architecture]})


def write(path: Path, architecture: str = "modern", head: str = "class", kind: str = "bpe", **more: Any) -> GPT:
    spec, labels = HEADS[head]
    model = model_of(architecture, spec, kind)
    write_model_folder(path, model, tokenizer_of(kind), "card", **{"labels": labels, **more})
    return model


def change(folder: Path, **changes: Any) -> None:
    """Changes config.json as another program could, without acorn's manifest; `absent` removes a key."""
    (folder / "manifest.json").unlink(missing_ok=True)
    values = {**json.loads((folder / "config.json").read_text()), **changes}
    kept = {key: value for key, value in values.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(kept))


@torch.no_grad()
def ours(loaded: LoadedModel, texts: list[str]) -> list[torch.Tensor]:
    """Outputs for each text, computed alone: of the last token, of a tagger of every token."""
    found = [loaded.model(torch.tensor([ids]))[0] for ids in loaded.label_text.encode(texts)]
    return found if loaded.task == "tag" else [outputs[-1] for outputs in found]


@torch.no_grad()
def theirs(folder: Path, texts: list[str], task: str) -> list[torch.Tensor]:
    """The same by transformers, in one padded batch, with the defaults of its classes."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    kind = (
        transformers.AutoModelForTokenClassification
        if task == "tag"
        else transformers.AutoModelForSequenceClassification
    )
    model = kind.from_pretrained(folder)
    assert not model.training
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 3
    logits = model(**batch).logits
    return [found[:length] if task == "tag" else found for found, length in zip(logits, lengths, strict=True)]


def probabilities(outputs: torch.Tensor, head: HeadSpec | None) -> torch.Tensor:
    if head is not None and head.has_classes:
        return outputs.softmax(-1)
    return outputs.sigmoid() if head is not None and head.kind == "labels" else outputs


def check_equal(loaded: LoadedModel, folder: Path, texts: list[str]) -> None:
    pairs = zip(ours(loaded, texts), theirs(folder, texts, loaded.task), strict=True)
    for own, other in pairs:
        assert own.shape == other.shape
        spec = loaded.model.head_spec
        torch.testing.assert_close(probabilities(own, spec), probabilities(other, spec), rtol=0, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probabilities_of_a_padded_batch_equal_those_of_transformers(
    architecture: str, head: str, tmp_path: Path
) -> None:
    folder = tmp_path / "final"
    model = write(folder, architecture, head)
    config = json.loads((folder / "config.json").read_text())
    ending = "ForTokenClassification" if head.startswith("tag") else "ForSequenceClassification"
    assert config["architectures"] == [PREFIX[architecture] + ending]
    assert not (folder / "generation_config.json").exists()
    loaded = load(folder)
    outputs = torch.cat([output.flatten() for output in ours(loaded, TEXTS)])
    assert outputs.std() > 0.3, "choose other values: the outputs are too dull to tell much"
    check_equal(loaded, folder, TEXTS)
    assert all(
        torch.equal(parameter, dict(loaded.model.named_parameters())[name])
        for name, parameter in model.named_parameters()
    )


@pytest.mark.parametrize("head", ["class", "labels", "tag"])
def test_wordpiece_classifiers_pad_with_their_separator(head: str, tmp_path: Path) -> None:
    """Which transformers must not mistake for the last token of a text."""
    folder = tmp_path / "final"
    write(folder, "gpt2", head, "wordpiece")
    loaded = load(folder)
    assert loaded.tokenizer.pad_id == loaded.tokenizer.separator_id
    check_equal(loaded, folder, TEXTS)


def test_the_pipeline_gives_names_of_labels(tmp_path: Path) -> None:
    write(tmp_path / "one", "modern", "class")
    loaded = load(tmp_path / "one")
    found = transformers.pipeline("text-classification", model=str(tmp_path / "one"))(TEXTS, top_k=None, batch_size=4)
    for outputs, scores in zip(ours(loaded, TEXTS), found, strict=True):
        expected = dict(zip(LABELS, outputs.softmax(-1).tolist(), strict=True))
        assert {score["label"]: score["score"] for score in scores} == pytest.approx(expected, abs=1e-4)

    write(tmp_path / "several", "gpt2", "labels")
    loaded = load(tmp_path / "several")
    found = transformers.pipeline("text-classification", model=str(tmp_path / "several"))(TEXTS[0], top_k=None)
    expected = dict(zip(LABELS, ours(loaded, TEXTS[:1])[0].sigmoid().tolist(), strict=True))
    assert {score["label"]: score["score"] for score in found} == pytest.approx(expected, abs=1e-4)

    write(tmp_path / "value", "llama", "value")
    loaded = load(tmp_path / "value")
    found = transformers.pipeline("text-classification", model=str(tmp_path / "value"))(TEXTS[1])
    assert found[0]["label"] == "value"
    assert found[0]["score"] == pytest.approx(float(ours(loaded, TEXTS[1:2])[0]), abs=1e-4)

    write(tmp_path / "tag", "modern", "tag")
    pipe = transformers.pipeline("token-classification", model=str(tmp_path / "tag"), ignore_labels=[])
    assert {tag["entity"] for tag in pipe(TEXTS[1])} <= set(LABELS)


@pytest.mark.parametrize(
    ("head", "task"), [("class", "classify"), ("labels", "classify"), ("value", "regress"), ("tag", "tag")]
)
def test_a_loaded_classifier_knows_its_task_and_labels(head: str, task: str, tmp_path: Path) -> None:
    write(tmp_path / "final", "modern", head)
    loaded = load(tmp_path / "final")
    assert (loaded.task, loaded.labels, loaded.end_ids) == (task, HEADS[head][1], ())
    assert loaded.model.head is None
    assert loaded.model.head_spec == HEADS[head][0]
    settings = json.loads((tmp_path / "final" / "tokenizer_config.json").read_text())
    assert (settings["padding_side"], settings["split_special_tokens"]) == ("right", True)


def test_a_taggers_head_has_the_same_outputs_while_transformers_trains_it(tmp_path: Path) -> None:
    """The default dropout of its classes before the head is 0.1."""
    for architecture in ("gpt2", "modern"):
        write(tmp_path / architecture, architecture, "tag")
        model = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / architecture).train()
        assert model.dropout.p == 0


def test_round_trip_through_transformers_keeps_everything(tmp_path: Path) -> None:
    for architecture in ("gpt2", "llama"):
        for head in ("class", "value", "tag"):
            first, second = tmp_path / f"{architecture} {head}", tmp_path / f"{architecture} {head} again"
            write(first, architecture, head)
            kind = "Token" if head == "tag" else "Sequence"
            model = getattr(transformers, f"AutoModelFor{kind}Classification").from_pretrained(first)
            model.save_pretrained(second)
            transformers.AutoTokenizer.from_pretrained(first).save_pretrained(second)
            before, after = load(first), load(second)
            assert (before.task, before.labels) == (after.task, after.labels)
            assert before.model.head_spec == after.model.head_spec
            weights = dict(after.model.named_parameters())
            assert all(torch.equal(weight, weights[name]) for name, weight in before.model.named_parameters())
            assert before.label_text.encode(TEXTS) == after.label_text.encode(TEXTS)


def test_class_weights_and_padding_rows_are_left_out(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("bpe")
    spec = HeadSpec("class", 3, class_weights=(1.0, 2.0, 3.0))
    model = classifier_for(tokenizer, spec, architecture="modern", vocab_size=tokenizer.vocab_size + 9)
    write_model_folder(tmp_path / "final", model, tokenizer, "card", labels=LABELS)
    loaded = load(tmp_path / "final")
    assert loaded.config.vocab_size == tokenizer.vocab_size
    assert loaded.model.head_spec == HeadSpec("class", 3)
    check_equal(loaded, tmp_path / "final", TEXTS)


def test_a_classifier_with_lora_is_written_merged(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("bpe")
    config = ModelConfig(n_layer=2, n_embd=48, n_head=4, block_size=128, vocab_size=tokenizer.vocab_size)
    model = GPT(config, head=HeadSpec("class", 3), lora=LoraSpec(rank=2, alpha=4.0)).eval()
    model.init_weights(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    write_model_folder(tmp_path / "final", model, tokenizer, "card", labels=LABELS)
    loaded = load(tmp_path / "final")
    check_equal(loaded, tmp_path / "final", TEXTS)
    ids = torch.tensor(loaded.label_text.encode(TEXTS[1]))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids), model(ids), rtol=0, atol=1e-4)


FOREIGN: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (transformers.GPT2Config, {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "qwen3": (
        transformers.Qwen3Config,
        {
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 128,
        },
    ),
}
FOREIGN["llama-3"] = (transformers.LlamaConfig, FOREIGN["qwen3"][1])


def foreign(path: Path, name: str, kind: str, **more: Any) -> None:
    """A classifier as another program makes it, whose tokenizer adds nothing of ours."""
    tokenizer_json, tokenizer_config = style(name)
    tokenizer = Tokenizer.from_json(tokenizer_json, as_it_is=True)
    config_class, sizes = FOREIGN[name]
    config = config_class(vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id, **{**sizes, **more})
    torch.manual_seed(3)
    model = getattr(transformers, f"AutoModelFor{kind}Classification").from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)
    (path / "tokenizer.json").write_text(tokenizer_json, "utf-8")
    config = {**tokenizer_config, "pad_token": tokenizer.pad, "padding_side": "right", "split_special_tokens": True}
    (path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("kind", ["Sequence", "Token"])
def test_classifiers_of_other_programs_give_their_own_probabilities(name: str, kind: str, tmp_path: Path) -> None:
    names = {0: "no", 1: "yes", 2: "maybe"}
    foreign(tmp_path / "model", name, kind, id2label=names, label2id={v: k for k, v in names.items()})
    loaded = load(tmp_path / "model")
    assert (loaded.task, loaded.labels) == ("classify" if kind == "Sequence" else "tag", ("no", "yes", "maybe"))
    texts = [text for text in TEXTS if text]  # transformers cannot compute a text without a token
    check_equal(loaded, tmp_path / "model", texts)
    assert loaded.label_text.encode("")[0]
    write_model_folder(tmp_path / "ours", loaded.model, loaded.tokenizer, "card", labels=loaded.labels)
    check_equal(load(tmp_path / "ours"), tmp_path / "ours", texts)


def test_what_other_programs_leave_out_is_as_transformers_has_it(tmp_path: Path) -> None:
    """It stores neither the names of two labels nor, mostly, a problem_type."""
    foreign(tmp_path / "two", "gpt2", "Sequence")
    change(tmp_path / "two", id2label="absent", label2id="absent", problem_type="absent")
    loaded = load(tmp_path / "two")
    assert (loaded.labels, loaded.task) == (("LABEL_0", "LABEL_1"), "classify")
    foreign(tmp_path / "one", "qwen3", "Sequence", num_labels=1)
    assert load(tmp_path / "one").task == "regress"
    foreign(tmp_path / "unbiased", "qwen3", "Token", token_classification_bias=False)
    check_equal(load(tmp_path / "unbiased"), tmp_path / "unbiased", [text for text in TEXTS if text])


def test_the_order_of_id2label_is_that_of_its_numbers(tmp_path: Path) -> None:
    write(tmp_path / "final")
    change(tmp_path / "final", id2label={"2": "c", "0": "a", "1": "b"}, label2id={"a": 2, "b": 0})
    assert load(tmp_path / "final").labels == ("a", "b", "c")
    pipe = transformers.pipeline("text-classification", model=str(tmp_path / "final"))
    best = ours(load(tmp_path / "final"), TEXTS[:1])[0].argmax()
    assert pipe(TEXTS[0])[0]["label"] == "abc"[best]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id2label": {"0": "a", "2": "b", "3": "c"}}, "none for the output 1"),
        ({"id2label": {"0": "a", "1": "b", "99999999999": "c"}}, "'99999999999', which is no number"),
        ({"id2label": {"0": "a", "1": "b", "4000000000": "c"}}, "none for the output 2"),
        ({"id2label": {"0": "a", "1": "b", "-1": "c"}}, "'-1', which is no number"),
        ({"id2label": {"0": "a", "1": "b", "02": "c"}}, "'02', which is no number"),
        ({"id2label": {"0": "a", "1": "b", "2": None}}, "names the output 2 None"),
        ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "'a' occurs more than once"),
        ({"id2label": {"0": "a", "1": "b", "2": "\ud800"}}, "lone surrogate"),
        ({"id2label": ["a", "b", "c"]}, "id2label is"),
        ({"id2label": {}}, "id2label is {}"),
        ({"id2label": "absent", "num_labels": 10**12}, "num_labels is 1000000000000"),
        ({"id2label": "absent", "num_labels": True}, "num_labels is True"),
        ({"num_labels": 4}, "num_labels is 4, but id2label has 3"),
        ({"problem_type": "ranking"}, "problem_type is 'ranking'"),
        ({"problem_type": ["regression"]}, "problem_type is"),
        ({"id2label": {"0": "a"}, "num_labels": 1}, "only one label"),
        ({"architectures": ["Qwen3ForQuestionAnswering"]}, "Qwen3ForQuestionAnswering"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "GPT2ForSequenceClassification"),
        ({"architectures": ["Qwen3ForCausalLM", "Qwen3ForSequenceClassification"]}, "models with one head"),
        ({"architectures": "Qwen3ForSequenceClassification"}, "architectures is"),
        ({"architectures": [7]}, "architectures is"),
    ],
)
def test_damaged_names_of_labels_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    write(tmp_path / "final")
    change(tmp_path / "final", **changes)
    with pytest.raises(InputError) as caught:
        load(tmp_path / "final")
    assert said in caught.value.what


@pytest.mark.parametrize(
    "changes",
    [
        {"id2label": "absent", "label2id": "absent", "num_labels": "absent"},  # two outputs, then
        {"id2label": {"0": "a", "1": "b"}, "num_labels": 2},
        {"id2label": {str(number): f"label {number}" for number in range(2000)}, "num_labels": "absent"},
        {"architectures": ["Qwen3ForCausalLM"]},
        {"architectures": ["Qwen3ForTokenClassification"]},
    ],
)
def test_labels_that_contradict_the_weights_are_damage(changes: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "final")
    change(tmp_path / "final", **changes)
    with pytest.raises(DamageError, match=r"score\.|lm_head"):
        load(tmp_path / "final")


def test_a_missing_head_or_a_changed_label_is_damage(tmp_path: Path) -> None:
    write(tmp_path / "final")
    assert model_faults(tmp_path / "final") == []
    assert [check.whole for check in verify_run(tmp_path / "final")] == [True]
    values = (tmp_path / "final" / "config.json").read_text()
    (tmp_path / "final" / "config.json").write_text(values.replace('"ham"', '"jam"'))
    with pytest.raises(DamageError, match=r"config\.json"):
        load(tmp_path / "final")
    assert model_faults(tmp_path / "final")
    (tmp_path / "final" / "manifest.json").unlink()
    weights = load_file(tmp_path / "final" / "model.safetensors")
    save_file({n: w for n, w in weights.items() if n != "score.weight"}, tmp_path / "final" / "model.safetensors")
    with pytest.raises(DamageError, match=r"score\.weight is missing"):
        load(tmp_path / "final")


def test_a_language_model_without_settings_of_generation_is_faulty(tmp_path: Path) -> None:
    from acorn.folders import new_folder

    write(tmp_path / "final")
    change(tmp_path / "final", architectures=["Qwen3ForCausalLM"])
    with new_folder(tmp_path / "sealed") as folder:
        for file in (tmp_path / "final").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    assert model_faults(tmp_path / "sealed") == [f"{tmp_path / 'sealed' / 'generation_config.json'}: is missing"]


@pytest.mark.parametrize(
    ("head", "labels", "said"),
    [
        ("class", ("a", "b"), "2 labels cannot name 3 outputs"),
        ("class", (), "0 labels cannot name 3 outputs"),
        ("class", ("a", "b", "a"), "'a' occurs more than once"),
        ("value", ("\udc80",), "lone surrogate"),
    ],
)
def test_labels_that_do_not_fit_are_not_written(head: str, labels: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        write(tmp_path / "final", head=head, labels=labels)
    assert list(tmp_path.iterdir()) == []


def test_a_single_class_is_not_written(tmp_path: Path) -> None:
    model = model_of("modern", HeadSpec("class", 1))
    with pytest.raises(InputError, match="only one label"):
        write_model_folder(tmp_path / "final", model, tokenizer_of("bpe"), "card", labels=["a"])


@given(labels=st.lists(st.text(), min_size=2, max_size=12, unique=True))
@settings(max_examples=100)
def test_labels_of_any_unicode_come_back(labels: list[str]) -> None:
    for kind, reader in (("class", "sequence"), ("labels", "sequence"), ("tag", "token")):
        head = HeadSpec(kind, len(labels), bias=kind == "tag")  # type: ignore[arg-type]
        assert not label_faults(head, labels)
        stored = json.loads(json.dumps(to_label_config(head, labels), sort_keys=True, ensure_ascii=False))
        faults: list[str] = []
        assert from_label_config(stored, reader, faults) == (head, tuple(labels))  # type: ignore[arg-type]
        assert not faults


def test_labels_of_any_script_are_on_the_disk_as_they_were(tmp_path: Path) -> None:
    labels = ("\u2028 \u0000", "נָכוֹן", '"\\')
    write(tmp_path / "final", labels=labels)
    assert load(tmp_path / "final").labels == labels
    config = transformers.AutoConfig.from_pretrained(tmp_path / "final")
    assert tuple(config.id2label[number] for number in range(3)) == labels
    assert config.label2id == {label: number for number, label in enumerate(labels)}


@pytest.mark.parametrize("name", ["head", "labels"])
def test_a_classifier_that_does_not_read_back_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from acorn.checkpoint import model_folder

    to_config = model_folder.to_config_json
    wrong: dict[str, Any] = {
        "head": {"problem_type": "multi_label_classification"},
        "labels": {"id2label": {"0": "b", "1": "a", "2": "c"}},
    }
    monkeypatch.setattr(model_folder, "to_config_json", lambda *a, **k: {**to_config(*a, **k), **wrong[name]})
    with pytest.raises(DamageError, match=f"the .*{name}"):
        write(tmp_path / "final")


def test_a_classifier_does_not_generate(tmp_path: Path) -> None:
    write(tmp_path / "final")
    with pytest.raises(UsageError, match="gives each text a label; it does not generate text"):
        load(tmp_path / "final").require_language_model("it does not generate text")
