"""Finetuning with TRL's SFTTrainer, with PEFT for LoRA, on examples that are tokens already.

With what makes it fast on a CPU: fused AdamW, PyTorch's attention, no gradient checkpointing. It logs every tenth step,
as it does by default, unless losses are asked for.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import datasets
import transformers
import trl
from transformers import TrainerCallback

from benchmarks.contenders.answering import Answers, specification
from benchmarks.contenders.counting import Turns


class Steps(TrainerCallback):
    """Is told of each step, and before that of its loss if every step is logged."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if args.logging_steps == 1 and "loss" in (logs or {}):
            self._after_step(control, logs["loss"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.logging_steps != 1:
            self._after_step(control)

    def _after_step(self, control: Any, loss: float | None = None) -> None:
        control.should_training_stop = not self.turns.after_step(loss)


def main() -> None:
    spec = specification()
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    transformers.set_seed(0)
    counts = itertools.cycle(json.loads(Path(spec["counts"]).read_text()))
    turns = Turns(Answers(), spec["warm_up"], counts)
    rows = datasets.Dataset.from_list(json.loads(Path(spec["tokens"]).read_text()))
    model = transformers.AutoModelForCausalLM.from_pretrained(spec["model"], attn_implementation="sdpa")
    adapter = None
    if spec["lora_rank"]:
        import peft

        adapter = peft.LoraConfig(
            r=spec["lora_rank"], lora_alpha=2 * spec["lora_rank"], target_modules="all-linear", task_type="CAUSAL_LM"
        )
    with tempfile.TemporaryDirectory() as folder:
        arguments = trl.SFTConfig(
            folder,
            **spec["trainer"],
            lr_scheduler_type="constant",
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            gradient_checkpointing=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec["model"])
        trainer = trl.SFTTrainer(
            model,
            arguments,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=adapter,
            callbacks=[Steps(turns)],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()


if __name__ == "__main__":
    main()
