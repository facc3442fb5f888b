"""Chat templates of loaded models, as transformers applies them and as runs store them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conversations import conversation, plain
from other_models import make_model
from small_models import LINES, model_for
from transformers import AutoTokenizer

from acorn.checkpoint.load import load
from acorn.checkpoint.model_chat import chat_format, chat_record, format_of_record
from acorn.checkpoint.model_folder import write_model_folder
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.training import train

CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + eos_token + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""
TALK = conversation("Who?", "Nobody.", "Việt 🙂?", system="Be brief.")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "qwen"
    folder.mkdir()
    make_model(folder, "qwen3")
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


def test_another_models_conversations_are_encoded_as_by_transformers(theirs: Path) -> None:
    """The template calls a token by its name, which tokenizer_config.json tells."""
    format = chat_format(load(theirs))
    assert format is not None
    expected = AutoTokenizer.from_pretrained(theirs).apply_chat_template(plain(TALK), add_generation_prompt=True)
    assert format.encode(TALK, to_answer=True).ids == expected["input_ids"]


def test_what_a_run_stores_gives_the_same_format_again(theirs: Path) -> None:
    loaded = load(theirs)
    record = json.loads(json.dumps(chat_record(loaded)))
    again = format_of_record(loaded.tokenizer, record)
    assert again.encode(TALK).ids == chat_format(loaded).encode(TALK).ids
    assert "now" not in record


def test_a_template_that_writes_the_date_gets_the_stored_one(theirs: Path, tmp_path: Path) -> None:
    make_model(tmp_path, "qwen3")
    (tmp_path / "chat_template.jinja").write_text("{{ strftime_now('%Y') }}\n" + CHATML)
    loaded = load(tmp_path)
    record = chat_record(loaded) | {"now": "1987-06-05T04:03:02"}
    text = loaded.tokenizer.decode(format_of_record(loaded.tokenizer, record).encode(TALK).ids)
    assert text.startswith("1987")


def test_acorns_own_models(tmp_path: Path) -> None:
    """With their template they have acorn's format; without, they have none."""
    tokenizer = train(lambda: LINES, "bpe", 320)
    model, format = model_for(tokenizer, "modern", n_layer=1, n_embd=32), ChatFormat(tokenizer)
    write_model_folder(tmp_path / "chat", model, tokenizer, "card", chat_template=format.template)
    write_model_folder(tmp_path / "text", model, tokenizer, "card")
    assert isinstance(chat_format(load(tmp_path / "chat")), ChatFormat)
    assert chat_format(load(tmp_path / "text")) is None
    assert chat_record(load(tmp_path / "text")) == {}
