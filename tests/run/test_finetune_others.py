"""Models of others are finetuned in every way; transformers and PEFT read what a run writes, with equal logits."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from other_models import make_model
from peft import PeftModel

from acorn.checkpoint.load import load
from acorn.export.adapter import export_adapter
from acorn.run.finetune import finetune
from acorn.run.finetune_config import finetune_config
from acorn.run_folder import RunFolder
from acorn.train.watcher import Unwatched

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCTIONS = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
    "{% else %} {{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
LINES = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TEMPLATES = {"gpt2": LINES, "llama-2": INSTRUCTIONS, "llama-3": LINES, "qwen3": CHATML}
"""Style -> a chat template without `{% generation %}`, as most folders have one."""

ENDS = {"gpt2": "<|endoftext|>", "llama-2": "</s>", "llama-3": "<|end_of_text|>", "qwen3": "<|im_end|>"}
WORDS = ("cat", "dog", "red", "old")
TASKS = ("chat", "complete", "classify", "regress")


class Case(NamedTuple):
    """A model, what it is finetuned for, and the rank of the adapters; 0: all weights are trained."""

    style: str
    tied: bool
    task: str
    rank: int


SHORT = [
    Case("gpt2", True, "chat", 2),
    Case("gpt2", False, "classify", 2),
    Case("gpt2", False, "complete", 0),
    Case("llama-2", False, "chat", 0),
    Case("llama-2", True, "complete", 2),
    Case("llama-3", True, "classify", 0),
    Case("qwen3", False, "chat", 2),
    Case("qwen3", True, "regress", 0),
]
ALL = [
    Case(style, tied, task, rank) for style in TEMPLATES for tied in (True, False) for task in TASKS for rank in (0, 2)
]
CASES = [*SHORT, *(pytest.param(case, marks=pytest.mark.slow) for case in ALL if case not in SHORT)]


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


class KillAtThree(Unwatched):
    def step(self, record, done, left) -> None:
        if record["step"] == 3:
            raise Killed


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of each task."""
    root = tmp_path_factory.mktemp("others")
    pairs = [(f"say {WORDS[number % 4]} {number}", WORDS[number * 7 % 4]) for number in range(24)]
    ask = [[{"role": "user", "content": p}, {"role": "assistant", "content": a}] for p, a in pairs]
    rows: dict[str, list[dict[str, Any]]] = {
        "chat": [{"messages": messages} for messages in ask],
        "complete": [{"prompt": f"{prompt}: ", "completion": answer} for prompt, answer in pairs],
        "classify": [{"text": prompt, "label": answer} for prompt, answer in pairs],
        "regress": [{"text": prompt, "label": 2.5 * len(prompt)} for prompt, _ in pairs],
    }
    for task, listed in rows.items():
        (root / f"{task}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in listed))
    return root


@pytest.fixture
def base(root: Path):
    """The folder of a model as other programs write it, with a chat template."""

    def build(style: str, tied: bool) -> Path:
        path = root / f"{style}{'-tied' if tied else ''}"
        if not path.exists():
            make_model(path, style, tie_word_embeddings=tied)
            settings = json.loads((path / "tokenizer_config.json").read_text())
            settings.setdefault("eos_token", ENDS[style])
            (path / "tokenizer_config.json").write_text(json.dumps(settings))
            (path / "chat_template.jinja").write_text(TEMPLATES[style])
        return path

    return build


@pytest.fixture
def tune(root: Path, base):
    def run(case: Case, out: Path, **options: Any) -> RunFolder:
        settings = ["train.steps=4", "train.batch_size=4", "train.eval_every=0", "train.save_every=2"]
        settings += ["train.precision=fp32", "train.threads=1", "optimizer.lr=0.01"]
        rows = [str(root / f"{case.task}.jsonl")]
        config = finetune_config(
            str(base(case.style, case.tied)), rows, task=case.task, lora=case.rank, overrides=settings
        )
        return RunFolder(finetune(config, out, **options).folder)

    return run


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_a_run_writes_is_equal_in_transformers_and_peft(case: Case, tune, base, tmp_path: Path) -> None:
    run = tune(case, tmp_path / "run")
    answers = case.task in ("chat", "complete")
    auto = transformers.AutoModelForCausalLM if answers else transformers.AutoModelForSequenceClassification
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.final)
    theirs, loaded = auto.from_pretrained(run.final).eval(), load(run.root)
    ids = tokenizer("He didn't count the gulls", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected, ours = theirs(ids).logits, loaded.model(ids)
    torch.testing.assert_close(ours if answers else ours[:, -1], expected, rtol=0, atol=1e-4)
    if case.task == "chat":
        end = tokenizer.convert_tokens_to_ids(ENDS[case.style])
        assert loaded.end_ids[0] == end
        ends = json.loads((run.final / "generation_config.json").read_text())["eos_token_id"]
        assert end in (ends if isinstance(ends, list) else [ends])
        assert (run.final / "chat_template.jinja").read_text() == TEMPLATES[case.style]
    if case.rank:
        export_adapter(run.root, tmp_path / "adapter")
        more = {} if answers else {"num_labels": theirs.config.num_labels}
        model = auto.from_pretrained(base(case.style, case.tied), **more)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # missing tensors, and fan_in_fan_out
            adapted = PeftModel.from_pretrained(model, str(tmp_path / "adapter")).eval()
        with torch.no_grad():
            logits = adapted(ids).logits[..., : expected.shape[-1]]  # the base has rows that no token has
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [SHORT[0], pytest.param(SHORT[6], marks=pytest.mark.slow)], ids=str)
def test_killed_and_resumed_is_bit_identical(case: Case, tune, tmp_path: Path) -> None:
    whole = tune(case, tmp_path / "whole")
    with pytest.raises(Killed):
        tune(case, tmp_path / "run", watcher=KillAtThree())
    run = tune(case, tmp_path / "run", resume=True)
    for folder in ("final", "adapter"):
        for file in (whole.root / folder).iterdir():
            assert file.read_bytes() == (run.root / folder / file.name).read_bytes(), file.name
