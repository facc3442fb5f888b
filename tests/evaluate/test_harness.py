"""Tasks of the lm-evaluation-harness: the scores are those of its own `hf` model on the same folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_acorn
from other_models import TEXTS, make_model

from acorn.checkpoint.load import load
from acorn.checkpoint.model_folder import write_model_folder
from acorn.config import ModelConfig
from acorn.model.gpt import GPT
from acorn.tokenizer.training import train

lm_eval = pytest.importorskip("lm_eval", reason="the extra eval is not installed")
os.environ["HF_DATASETS_OFFLINE"] = "1"

ROWS = [
    {"question": "Who counted the gulls?", "choices": ["the keeper", "the cat", "nobody at all"], "answer": 0},
    {"question": "In winter there were", "choices": ["few ships", " ships"], "answer": 1},
    {"question": TEXTS[1] * 3, "choices": ["won", "lost the quarrel"], "answer": 1},  # longer than the context
]
KINDS = {
    "choice": "output_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: '{{choices}}'\n"
    "doc_to_target: answer\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n",
    "likelihood": "output_type: loglikelihood\ndoc_to_text: '{{question}}'\ndoc_to_target: ' {{choices[0]}}'\n"
    "metric_list: [{metric: perplexity}, {metric: acc}]\n",
    "rolling": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{question}}'\n"
    "metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]\n",
    "writing": "output_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{written}}'\n"
    "generation_kwargs: {until: ['\\n'], max_gen_toks: 12, do_sample: false}\nmetric_list: [{metric: exact_match}]\n",
}


@pytest.fixture
def tasks(tmp_path: Path) -> Callable[..., Path]:
    """A folder with four small tasks; the text to generate is given."""

    def make(written: list[str] | None = None) -> Path:
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        rows = [{**row, "written": text} for row, text in zip(ROWS, written or [""] * 3, strict=True)]
        (folder / "rows.json").write_text("\n".join(map(json.dumps, rows)))
        for name, content in KINDS.items():
            data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'rows.json'}}}}}\n"
            fewshot = "fewshot_split: test\nfewshot_config: {sampler: first_n}\n"
            (folder / f"{name}.yaml").write_text(f"task: acorn_{name}\n{data}test_split: test\n{fewshot}{content}")
        return folder

    return make


def a_model(path: Path, kind: str) -> None:
    """A folder with random weights: of acorn with either tokenizer, or of another program."""
    if kind in ("bpe", "wordpiece"):
        tokenizer = train(lambda: TEXTS, kind, 400)  # type: ignore[arg-type]
        shape = {"n_layer": 2, "n_head": 4, "n_embd": 48, "block_size": 64, "vocab_size": tokenizer.vocab_size}
        model = GPT(
            ModelConfig.model_validate({**shape, "architecture": "original" if kind == "wordpiece" else "modern"})
        )
        model.init_weights(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
        write_model_folder(path, model, tokenizer, "card")
    else:
        make_model(path, kind, padding=0)


def their_scores(folder: Path, tasks: Path, names: list[str], **settings: Any) -> dict[str, Any]:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        HFLM(pretrained=str(folder), batch_size=2, device="cpu", dtype="float32"),
        tasks=names,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        **settings,
    )
    return found


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "gpt2", "llama-3", "llama-2"])
def test_scores_equal_those_of_the_harnesss_own_model(kind: str, tmp_path: Path, tasks: Callable[..., Path]) -> None:
    a_model(tmp_path / "model", kind)
    names = [f"acorn_{name}" for name in KINDS]
    theirs = their_scores(tmp_path / "model", tasks(), names)
    written = [sample["resps"][0][0] for sample in theirs["samples"]["acorn_writing"]]
    assert any(written)
    for run in (tasks(), tasks(written)):  # at last, what theirs wrote is what is wanted
        done = run_acorn("evaluate", tmp_path / "model", "--tasks", ",".join(names), "--tasks-path", run, "--json")
        assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)["tasks"]
    for name, metrics in theirs["results"].items():
        for metric, value in metrics.items():
            if isinstance(value, float) and "stderr" not in metric and name != "acorn_writing":
                assert ours[name][metric] == pytest.approx(value, rel=1e-4), (name, metric)
    assert ours["acorn_writing"]["exact_match,none"] == 1
    assert ours["acorn_rolling"]["bits_per_byte,none"] > 1


def test_fewer_examples_and_more_shots(
    tmp_path: Path, tasks: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard errors are computed without other processes, which would inherit the signal handlers."""
    a_model(tmp_path / "model", "bpe")
    with monkeypatch.context() as patch:
        patch.delenv("DISABLE_MULTIPROC", raising=False)
        patch.setattr("multiprocessing.Pool", lambda *_: pytest.fail("other processes were to be started"))
        done = run_acorn(
            *("evaluate", tmp_path / "model", "--tasks", "acorn_likelihood", "--tasks-path", tasks()),
            *("--limit", "2", "--num-fewshot", "1", "--json"),
        )
    assert done.returncode == 0, done.stderr
    settings: dict[str, Any] = {"limit": 2, "num_fewshot": 1}
    theirs = their_scores(tmp_path / "model", tasks(), ["acorn_likelihood"], **settings)["results"]["acorn_likelihood"]
    ours = json.loads(done.stdout)["tasks"]["acorn_likelihood"]
    assert ours["perplexity,none"] == pytest.approx(theirs["perplexity,none"], rel=1e-4)
    assert ours["sample_len"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--tasks", "acorn_choise"], 2, "did you mean acorn_choice"),
        (["--tasks", "nothing_like_it"], 2, "fix: `lm-eval ls tasks` lists its tasks"),
        (["--tasks", "acorn_choice", "--input", "a.txt"], 2, "--input does not go with --tasks"),
        (["--limit", "3"], 2, "--limit goes with --tasks alone"),
    ],
)
def test_wrong_use_gives_a_clear_message(
    arguments: list[str], code: int, said: str, tmp_path: Path, tasks: Callable[..., Path]
) -> None:
    a_model(tmp_path / "model", "bpe")
    where = ["--tasks-path", tasks()] if "--tasks" in arguments else []
    done = run_acorn("evaluate", tmp_path / "model", *arguments, *where)
    assert done.returncode == code
    assert said in done.stderr


def test_rolling_loglikelihood_equals_acorns_own_evaluation(
    tmp_path: Path, tasks: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """The harness also predicts the first separator of a text, from another separator, but not the last one."""
    a_model(tmp_path / "model", "bpe")
    loaded = load(tmp_path / "model")
    ids = loaded.tokenizer.encode_prompt(ROWS[0]["question"])
    with torch.no_grad():
        logits = loaded.model(torch.tensor([[ids[0], *ids[:-1]]]))[0].log_softmax(-1)
    expected = -sum(float(logits[n, token]) for n, token in enumerate(ids))
    done = run_acorn(
        *(
            "evaluate",
            tmp_path / "model",
            "--tasks",
            "acorn_rolling",
            "--tasks-path",
            tasks(),
            "--limit",
            "1",
            "--json",
        ),
        cwd=tmp_path,
    )
    assert "git" not in capfd.readouterr().err  # that the user's folder is no repository is no fault
    bits = json.loads(done.stdout)["tasks"]["acorn_rolling"]["bits_per_byte,none"]
    n_bytes = len(ROWS[0]["question"].encode())
    assert bits == pytest.approx(expected / 0.6931471805599453 / n_bytes, rel=1e-5)


def test_scores_over_http_are_those_of_the_command(tmp_path: Path, tasks: Callable[..., Path]) -> None:
    """`local-completions`, the harness's client of servers, which asks for the log probabilities of a prompt's tokens
    and generates one more."""
    pytest.importorskip("tenacity", reason="lm-eval's extra api is not installed")
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.tasks import TaskManager
    from tiny_servers import serving

    from acorn.serve.scheduler import Scheduler

    a_model(tmp_path / "model", "bpe")
    names, folder = [f"acorn_{name}" for name in KINDS if name != "writing"], tasks()
    done = run_acorn(
        *("evaluate", tmp_path / "model", "--tasks", ",".join(names), "--tasks-path", folder, "--limit", "2", "--json")
    )
    assert done.returncode == 0, done.stderr
    with serving(load(tmp_path / "model"), scheduler=Scheduler) as server:
        model = LocalCompletionsAPI(
            base_url=f"{server.url}/v1/completions",
            model="tiny",
            tokenizer=str(tmp_path / "model"),
            max_length=64,
            add_bos_token=True,  # as its `hf` model does where the tokenizer has one
        )
        found = lm_eval.simple_evaluate(
            model,
            tasks=names,
            limit=2,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        )
    ours = json.loads(done.stdout)["tasks"]
    for name, metrics in found["results"].items():
        for metric, value in metrics.items():
            if isinstance(value, float) and "stderr" not in metric:
                assert ours[name][metric] == pytest.approx(value, rel=1e-4), (name, metric)
