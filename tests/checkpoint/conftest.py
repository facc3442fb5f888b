"""A run folder as training leaves it: two checkpoints, the better one marked, a final model, token shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from acorn.checkpoint.model_folder import write_model_folder
from acorn.checkpoint.training_state import Counters, save_checkpoint
from acorn.config import Config, DataConfig, ModelConfig
from acorn.config_files import to_toml
from acorn.data.prepare import prepare
from acorn.files import write_file, write_sealed_json
from acorn.model.gpt import GPT
from acorn.run_folder import RunFolder
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

TEXT = "".join(f"Number {n} is a number that comes after {n - 1}.\n\n" for n in range(1, 300))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train(lambda: [TEXT], "bpe", 300)


def model_of_step(config: ModelConfig, step: int) -> GPT:
    """A different model for each step, with no parameter at its initial value."""
    model = GPT(config)
    model.init_weights(step)
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def build_run(root: Path, tokenizer: Tokenizer) -> RunFolder:
    """A run with checkpoints of steps 10 and 20 (10 is the best), and the final model of step 20."""
    run = RunFolder(root)
    model_config = ModelConfig(n_layer=1, n_embd=16, n_head=2, block_size=32, vocab_size=tokenizer.vocab_size)
    config = Config(model=model_config)
    source = root.with_name(root.name + "-source")
    source.mkdir(parents=True)
    for name in ("a", "b", "c", "d"):
        (source / f"{name}.txt").write_text(TEXT + name)
    splits = TextSplits.open(DataConfig(source=(str(source / "[ab].txt"),), valid_source=(str(source / "[cd].txt"),)))
    prepare(splits, tokenizer, run.data)
    write_file(run.config, to_toml(config))
    tokenizer.save(run.tokenizer)
    for step in (10, 20):
        model = model_of_step(model_config, step)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long))[0].backward()
        optimizer.step()
        counters = Counters(step=step)
        save_checkpoint(run.checkpoint(step), config, tokenizer.to_json(), model, [optimizer], counters, {})
    write_sealed_json(run.best, {"step": 10, "loss": 1.0})
    write_model_folder(run.final, model, tokenizer, "card")
    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """The run that each test gets a copy of."""
    return build_run(tmp_path_factory.mktemp("runs") / "run", tokenizer).root


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(finished_run, tmp_path / "run")))
