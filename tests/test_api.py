"""The public Python names, used as the tutorial uses them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import acorn

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


def test_the_tutorials_path(corpus: Path, tmp_path: Path) -> None:
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


def test_errors_are_acorns_own(tmp_path: Path) -> None:
    with pytest.raises(acorn.AcornError) as caught:
        acorn.load(tmp_path / "nowhere")
    assert caught.value.exit_code == 2
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = acorn.nothing


def test_import_is_light_and_names_are_there() -> None:
    script = "import acorn, sys; print('torch' in sys.modules, set(acorn.__all__) <= set(dir(acorn)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "acorn", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"acorn {acorn.__version__}\n"
