"""Training of transformers' GPT-2 or Qwen3: in a plain loop (eager or compiled), or with its Trainer."""

from __future__ import annotations

import contextlib
import tempfile
import time
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers import TrainerCallback

from benchmarks.contenders.answering import Answers, answer, peak_bytes, specification

UNREACHABLE_COUNT = 1_000_000


def main() -> None:
    spec = specification()
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = getattr(transformers, spec["config_class"])(**spec["transformers"])
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with_trainer(spec, model) if spec["loop"] == "trainer" else with_plain_loop(spec, model)


def with_plain_loop(spec: dict[str, Any], model: Any) -> None:
    device = spec["device"]
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    forward = torch.compile(model) if spec["compile"] else model
    ids = torch.randint(model.config.vocab_size, (spec["batch_size"], spec["block_size"])).to(device)
    bf16 = torch.autocast(device, torch.bfloat16) if spec["precision"] == "bf16" else contextlib.nullcontext()

    def work() -> dict[str, float]:
        with bf16:
            loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"tokens": ids.numel(), "loss": loss.item()}

    answer(work, warm_up=spec["warm_up"], device=device)


class Rows(Dataset):  # type: ignore[type-arg]
    """Random token ids, practically without end."""

    def __init__(self, vocab_size: int, length: int) -> None:
        self.row = torch.randint(vocab_size, (length,))

    def __len__(self) -> int:
        return UNREACHABLE_COUNT

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.row, "labels": self.row}


class Turns(TrainerCallback):
    """Pauses training between steps until the benchmark requests more."""

    def __init__(self, answers: Answers, warm_up: int, batch_tokens: int, device: str) -> None:
        self.answers, self.batch_tokens, self.device = answers, batch_tokens, device
        self.left = self.asked = warm_up
        self.warm = False
        self.begin = time.perf_counter()
        self.first = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.first = self.first or time.perf_counter() - self.begin
        self.left -= 1
        if self.left:
            return
        seconds = time.perf_counter() - self.begin
        if self.warm:
            tokens = self.asked * self.batch_tokens
            self.answers.send({"seconds": seconds, "tokens": tokens, "peak_bytes": peak_bytes(self.device)})
        else:
            self.answers.send({"ready": True, "first_seconds": self.first})
            self.warm = True
        self.left = self.asked = self.answers.next_count()
        control.should_training_stop = not self.left
        self.begin = time.perf_counter()


def with_trainer(spec: dict[str, Any], model: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=UNREACHABLE_COUNT,
            per_device_train_batch_size=spec["batch_size"],
            bf16=spec["precision"] == "bf16",
            use_cpu=spec["device"] == "cpu",
            torch_compile=spec["compile"],
            report_to="none",
            save_strategy="no",
            logging_steps=UNREACHABLE_COUNT,
            disable_tqdm=True,
            dataloader_pin_memory=spec["device"] == "cuda",
        )
        turns = Turns(Answers(), spec["warm_up"], spec["batch_size"] * spec["block_size"], spec["device"])
        rows = Rows(model.config.vocab_size, spec["block_size"])
        transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[turns]).train()


if __name__ == "__main__":
    main()
