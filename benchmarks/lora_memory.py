"""Peak memory of `acorn finetune`, all weights against LoRA: a whole short run of each, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acorn.checkpoint.model_folder import write_model_folder
from acorn.config import ModelConfig
from acorn.model.gpt import GPT
from acorn.tokenizer.training import train

TEXT = "The keeper counted the gulls, and wrote their number into a book; nobody had asked him to."
VOCAB_SIZE = 320
SIZES = {"n_layer": 13, "n_embd": 512, "n_head": 8, "block_size": 256}
"""42 million parameters, nearly all of them in the blocks, as in larger models."""

ROWS, PROMPT = 24, 4
"""Examples, and repeats of the text in the prompt of each: about 200 tokens with the answer."""

SETTINGS = (
    "train.steps=2",
    "train.batch_size=4",
    "train.micro_batch_size=1",
    "train.eval_every=0",
    "train.precision=fp32",
)
RANK = 8


def measure_lora_memory(say: Callable[[str], None], sizes: dict[str, int] = SIZES) -> dict[str, Any]:
    """Parameters of the model, and peak resident memory (bytes) of a run that trains all of them and of one with LoRA.

    Each covers the whole command: loading, training, saving, scoring the validation side, and writing the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tokenizer = train(lambda: [TEXT], "bpe", VOCAB_SIZE)
        model = GPT(ModelConfig(vocab_size=tokenizer.vocab_size, **sizes))
        model.init_weights(1)
        write_model_folder(root / "base", model, tokenizer, "card")
        rows = [{"prompt": f"{number}: {TEXT * PROMPT}", "completion": TEXT} for number in range(ROWS)]
        (root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        found: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
        for name, rank in (("all weights", 0), (f"LoRA of rank {RANK}", RANK)):
            found[name] = _peak_of(root, rank)
            say(f"{name}: {found[name] / 1e6:,.0f} MB at the peak")
    return found


def _peak_of(root: Path, rank: int) -> int:
    """Peak resident memory of one run."""
    child = [sys.executable, "-m", "benchmarks.lora_memory", str(root), str(rank)]
    done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def _finetune(root: Path, rank: int) -> None:
    """Runs the command in this process, then prints its peak memory in bytes."""
    from acorn.run.finetune import finetune
    from acorn.run.finetune_config import finetune_config
    from benchmarks.contenders.answering import peak_bytes

    config = finetune_config(str(root / "base"), [str(root / "rows.jsonl")], lora=rank, overrides=SETTINGS)
    finetune(config, root / f"rank-{rank}")
    print(peak_bytes())


if __name__ == "__main__":
    _finetune(Path(sys.argv[1]), int(sys.argv[2]))
