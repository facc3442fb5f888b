"""The end of a turn is learned: greedy answers of a small chat run end by themselves, in three programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import transformers

from acorn.checkpoint.load import load
from acorn.checkpoint.model_folder import write_model_folder
from acorn.config import ModelConfig
from acorn.export.export import GGUF_FILE, export
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.run.finetune import finetune
from acorn.run.finetune_config import finetune_config
from acorn.text.examples import Message
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.training import train

COLORS = {"grass": "It is green.", "snow": "White!", "coal": "Black, I believe.", "the sea": "Blue"}
MOST_TOKENS, LEAST_SHARE = 24, 0.99


def question(thing: str, number: int) -> str:
    return f"Color of {thing} {number}?"


ASKED = [question(thing, number) for thing in COLORS for number in range(100, 110)]
"""Questions that no row has."""


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    pairs = [(question(thing, number), answer) for number in range(40) for thing, answer in COLORS.items()]
    tokenizer = train(lambda: [f"{ask} {answer}" for ask, answer in pairs], "bpe", 320)
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 64, "block_size": 64}
    model = GPT(ModelConfig(vocab_size=tokenizer.vocab_size, **sizes))
    model.init_weights(1)
    write_model_folder(folder / "base", model, tokenizer, "card")
    rows = [
        {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
        for ask, answer in pairs
    ]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = ["train.steps=150", "train.batch_size=16", "train.eval_every=0", "optimizer.lr=0.005"]
    settings += ["train.precision=fp32", "train.threads=1"]
    finetune(finetune_config(str(folder / "base"), [str(folder / "rows.jsonl")], overrides=settings), folder / "run")
    return folder / "run"


def assert_ended(ended: Sequence[bool]) -> None:
    assert len(ended) == len(ASKED)
    assert sum(ended) >= LEAST_SHARE * len(ended)


def test_in_acorn(chat_run: Path) -> None:
    loaded = load(chat_run)
    format = ChatFormat(loaded.tokenizer)
    prompts = [format.encode([Message("user", ask, False)], to_answer=True).ids for ask in ASKED]
    settings = SamplingSettings(greedy=True, max_new_tokens=MOST_TOKENS)
    ends = {"end_ids": loaded.end_ids, "trained_ids": loaded.trained_ids}
    answers = generate(loaded.model, loaded.tokenizer, prompts, settings, **ends)
    assert_ended([answer.finish_reason == "eos" for answer in answers])
    assert {answer.new_ids[-1] for answer in answers} == {format.end_ids[0]}
    assert {answer.completion for answer in answers} == set(COLORS.values())


def test_in_transformers_with_the_settings_and_the_template_of_the_folder(chat_run: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(chat_run / "final")
    model = transformers.AutoModelForCausalLM.from_pretrained(chat_run / "final").eval()
    ended, texts = [], set()
    for ask in ASKED:
        messages = [{"role": "user", "content": ask}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            made = model.generate(**inputs, do_sample=False, max_new_tokens=MOST_TOKENS)
        new = made[0, inputs["input_ids"].shape[1] :].tolist()
        ended.append(len(new) < MOST_TOKENS and tokenizer.decode(new[-1:]) == "<|end|>")
        texts.add(tokenizer.decode(new, skip_special_tokens=True))
    assert_ended(ended)
    assert texts == set(COLORS.values())


def test_in_llama_cpp_with_the_template_of_the_file(chat_run: Path, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python takes minutes to build; extra `llama`")
    export(chat_run, tmp_path / "out", "gguf")
    llama = llama_cpp.Llama(str(tmp_path / "out" / GGUF_FILE), n_ctx=64, verbose=False, n_threads=1)
    assert "generation" not in llama.metadata["tokenizer.chat_template"].replace("add_generation_prompt", "")
    ended, texts = [], set()
    for ask in ASKED:
        messages = [{"role": "user", "content": ask}]
        answer = llama.create_chat_completion(messages, temperature=0.0, max_tokens=MOST_TOKENS)["choices"][0]
        ended.append(answer["finish_reason"] == "stop")
        texts.add(answer["message"]["content"])
    llama.close()
    assert_ended(ended)
    assert texts == set(COLORS.values())
