"""The original's recipe with transformers' Trainer on real text: GPT-2 of the same sizes, AdamW with a constant 5e-4.

With the Trainer's faster options: bf16, fused AdamW; windows in random order, no dropout. A unit of work is `every`
seconds of training and one validation, which does not count as training time.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset
from transformers import TrainerCallback

from benchmarks.contenders.answering import Answers, peak_bytes, specification
from benchmarks.contenders.original_quality import BATCH_SIZE, validate

UNREACHABLE_STEPS = 1_000_000


class Windows(Dataset):  # type: ignore[type-arg]
    """The text in consecutive windows. The model shifts the labels itself."""

    def __init__(self, tokens: torch.Tensor, length: int) -> None:
        self.windows = tokens[: len(tokens) // length * length].view(-1, length)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.windows[index], "labels": self.windows[index]}


class Turns(TrainerCallback):
    """Pauses training between steps to validate and to answer."""

    def __init__(self, answers: Answers, every: float, valid: torch.Tensor, length: int, device: str) -> None:
        self.answers, self.every, self.valid, self.length, self.device = answers, every, valid, length, device
        self.curve: list[list[float]] = []
        self.trained = 0.0
        self.begin = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.begin:
            self.answers.send({"ready": True})
            control.should_training_stop = not self.answers.next_count()
            self.begin = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if time.perf_counter() - self.begin < self.every:
            return
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.begin
        self.trained += seconds
        tokens = state.global_step * BATCH_SIZE * self.length
        model.eval()
        with torch.autocast(self.device, torch.bfloat16):
            loss = validate(
                lambda ids, targets: torch.nn.functional.cross_entropy(
                    model(input_ids=ids).logits.float().flatten(0, 1), targets.flatten()
                ),
                self.valid,
                self.length,
            )
        model.train()
        self.curve.append([self.trained, tokens, loss])
        new = tokens - (self.curve[-2][1] if len(self.curve) > 1 else 0)
        peak = peak_bytes(self.device)
        self.answers.send({"seconds": seconds, "tokens": new, "peak_bytes": peak, "curve": self.curve})
        control.should_training_stop = not self.answers.next_count()
        self.begin = time.perf_counter()


def main() -> None:
    spec = specification()
    answers, device, sizes = Answers(), spec["device"], spec["original_model"]
    transformers.logging.set_verbosity_error()
    train, valid = (torch.from_numpy(np.load(spec[split]).astype(np.int64)) for split in ("train", "valid"))
    length = sizes["block_size"]
    config = transformers.GPT2Config(
        vocab_size=sizes["vocab_size"],
        n_positions=length,
        n_embd=sizes["n_embd"],
        n_layer=sizes["n_layer"],
        n_head=sizes["n_head"],
        activation_function="relu",
        tie_word_embeddings=False,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=UNREACHABLE_STEPS,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=5e-4,
            lr_scheduler_type="constant",
            bf16=True,
            use_cpu=device == "cpu",
            report_to="none",
            save_strategy="no",
            logging_steps=UNREACHABLE_STEPS,
            disable_tqdm=True,
        )
        turns = Turns(answers, spec["every"], valid.to(device), length, device)
        transformers.Trainer(model, arguments, train_dataset=Windows(train, length), callbacks=[turns]).train()


if __name__ == "__main__":
    main()
