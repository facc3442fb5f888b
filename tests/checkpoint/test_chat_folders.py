"""Folders of models that were trained on chats: what ends an answer, and which reserved tokens may be sampled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from small_models import LINES, model_for

from acorn.checkpoint.load import load, load_checkpoint
from acorn.checkpoint.model_folder import write_model_folder
from acorn.checkpoint.model_task import ModelTask
from acorn.checkpoint.training_state import Counters, save_checkpoint
from acorn.config import Config
from acorn.errors import DamageError
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.model.label_head import HeadSpec
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: LINES, "bpe", 400)


def test_trained_tokens_are_not_suppressed_and_come_back(tmp_path: Path, tokenizer: Tokenizer) -> None:
    chat = ChatFormat(tokenizer)
    user = tokenizer.id_of("<|user|>")
    assert user is not None
    model = model_for(tokenizer, "modern")
    write_model_folder(tmp_path / "plain", model, tokenizer, "card")
    write_model_folder(
        tmp_path / "chat",
        model,
        tokenizer,
        "card",
        chat_template=chat.template,
        end_ids=chat.end_ids,
        trained_ids=[user],
    )
    suppressed = {
        name: json.loads((tmp_path / name / "generation_config.json").read_text())["suppress_tokens"]
        for name in ("plain", "chat")
    }
    assert set(suppressed["plain"]) - set(suppressed["chat"]) == {user, tokenizer.id_of("<|end|>")}
    plain, loaded = load(tmp_path / "plain"), load(tmp_path / "chat")
    assert (plain.trained_ids, plain.chat_template, plain.task) == ((), "", "")
    assert (loaded.end_ids, loaded.trained_ids) == (chat.end_ids, (user,))
    assert (loaded.chat_template, loaded.task) == (chat.template, "")


def test_another_programs_folder_that_suppresses_nothing_tells_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_model_folder(tmp_path / "model", model_for(tokenizer, "gpt2"), tokenizer, "card")
    file = tmp_path / "model" / "generation_config.json"
    values = json.loads(file.read_text())
    for suppressed in ("absent", None, [], "all"):
        changed = {**values, "suppress_tokens": suppressed}
        file.write_text(json.dumps({key: value for key, value in changed.items() if value != "absent"}))
        assert load(tmp_path / "model").trained_ids == ()


def test_a_chat_model_stops_where_transformers_does(tmp_path: Path, tokenizer: Tokenizer) -> None:
    chat = ChatFormat(tokenizer)
    model = model_for(tokenizer, "gpt2", tied=False)
    assert model.head is not None
    with torch.no_grad():  # the last activations are all ones, so a row's sum is its logit
        model.final_norm.weight.zero_()
        model.final_norm.bias.fill_(1.0)
        model.head.weight[tokenizer.reserved_ids] = 5.0
        model.head.weight[chat.end_ids[0]] = 4.0  # the likeliest of those that may be sampled
    write_model_folder(tmp_path / "chat", model, tokenizer, "card", end_ids=chat.end_ids)
    loaded = load(tmp_path / "chat")
    (result,) = generate(
        loaded.model,
        loaded.tokenizer,
        ["An oak"],
        SamplingSettings(9, greedy=True),
        end_ids=loaded.end_ids,
        trained_ids=loaded.trained_ids,
    )
    assert (result.new_ids, result.finish_reason) == ([chat.end_ids[0]], "eos")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "chat")
    ids = torch.tensor([result.prompt_ids])
    made = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False)
    assert made[0, ids.size(1) :].tolist() == result.new_ids


def test_a_damaged_template_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_model_folder(tmp_path / "chat", model_for(tokenizer, "modern"), tokenizer, "card", chat_template="{{ x }}")
    (tmp_path / "chat" / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(DamageError, match=r"chat_template\.jinja is not UTF-8"):
        load(tmp_path / "chat")


def test_a_checkpoint_is_read_with_the_task_that_is_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Its weights alone tell neither labels nor what ends an answer."""
    from small_models import classifier_for

    folder = tmp_path / "step-00000003"
    head = HeadSpec("labels", 2)
    model = classifier_for(tokenizer, head, architecture="modern")
    save_checkpoint(folder, Config(model=model.config), tokenizer.to_json(), model, [], Counters(step=3), {})
    with pytest.raises(DamageError, match=r"score\.weight"):
        load_checkpoint(folder)
    loaded = load_checkpoint(folder, task_of=lambda state, _: ModelTask(head, ("a", "b")))
    assert (loaded.task, loaded.labels, loaded.step) == ("classify", ("a", "b"), 3)
    ids = torch.tensor([loaded.label_text.encode("An oak")[0]])
    assert torch.equal(loaded.model(ids), model(ids))
