"""The tutorials of finetuning: every command of each page runs, in its order, with a tiny base and a few steps."""

from __future__ import annotations

import io
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from command_line import run_acorn
from other_models import make_model

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))

QUICK = ["train.steps=2", "train.batch_size=4", "train.eval_every=0", "train.precision=fp32", "train.threads=1"]
SIZES = ["tokenizer.vocab_size=300", "model.n_layer=1", "model.n_embd=32", "model.block_size=160"]

EXTRA = {
    "finetune": QUICK,
    "generate": ["--max-new-tokens", "4", "--device", "cpu"],
    "dates": ["--examples", "60"],
}
"""What is added to a command so that it is quick."""

WRITTEN = {
    "hub-model-lora": ["runs/lora/adapter/adapter_config.json", "exports/dates-adapter/adapter_config.json"],
    "normalise-dates": ["runs/dates/predictions.jsonl"],
    "shakespeare-chat": ["runs/chat/final/chat_template.jinja"],
    "sort-mails": ["runs/spam/confusion.png", "runs/spam/predictions.jsonl"],
}
"""Page -> files that its commands write."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for given: a text, plays, mails, a base and a model of someone else."""
    folder = tmp_path_factory.mktemp("tutorials")
    (folder / "my.txt").write_text("".join(f"The {n}th cat saw the dog.\n\n" for n in range(300)))
    plays = "".join(f"{'ROMEO' if n % 2 else 'NURSE'}:\nSpeech {n}.\n\n" for n in range(120))
    (folder / "my-plays.txt").write_text(plays)
    for name, said in {"easy-ham-1": "Lunch at noon", "spam-1": "Win cash now"}.items():
        (folder / "package/data" / name).mkdir(parents=True)
        for n in range(30):
            (folder / "package/data" / name / f"{n}.txt").write_text(f"Subject: {said}\n\n{said}, {n} times.\n")
    settings = [*SIZES, *QUICK, "data.source=my.txt", "train.sample_tokens=2"]
    done = run_acorn("pretrain", "small", *settings, "--out", "runs/base", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "runs/plays").symlink_to("base")
    make_model(folder / "path/to/model", "gpt2", n_embd=32, n_layer=1)
    return folder


def lines_of(page: Path) -> list[list[str]]:
    """The lines of a page that start with four spaces and `acorn` or `python`, with continued lines joined."""
    lines = re.findall(r"^ {4}((?:acorn|python) (?:.*\\\n)*.*)$", page.read_text("utf-8"), re.M)
    return [shlex.split(line.replace("\\\n", " ")) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_tutorial_work(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"How now?\n")))  # said in acorn chat
    verbs = []
    for program, verb, *arguments in lines_of(page):
        if program == "python":
            extra = EXTRA.get(Path(verb).stem, [])
            monkeypatch.setattr(sys, "argv", [verb, *arguments, *extra])
            runpy.run_path(str(ROOT / verb), run_name="__main__")
            continue
        verbs.append(verb)
        if verb == "pretrain":  # the fixture did it
            continue
        given = [word for word in arguments if not word.startswith("finetune.epochs=")]
        done = run_acorn(verb, *given, *EXTRA.get(verb, []))
        assert done.returncode == 0, f"acorn {verb} {shlex.join(given)}: {done.stderr}"
        assert done.stdout
        if "--json" in given:
            json.loads(done.stdout)
    assert {"finetune", "evaluate"} <= set(verbs)
    for file in WRITTEN[page.stem]:
        assert (folder / file).stat().st_size > 0
