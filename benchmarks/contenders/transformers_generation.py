"""Generation with transformers' `generate` and its cache."""

from __future__ import annotations

import time

import torch
import transformers

from benchmarks.contenders.answering import answer, specification

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    spec = specification()
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(spec["folder"], dtype=DTYPES[spec["precision"]]).eval()
    ids = torch.tensor([spec["ids"]]).repeat(spec["batch_size"], 1)
    fixed = {"do_sample": False, "eos_token_id": None, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}

    def generate(count: int) -> float:
        begin = time.perf_counter()
        model.generate(ids, max_new_tokens=count, min_new_tokens=count, **fixed)
        return time.perf_counter() - begin

    def work() -> dict[str, float]:
        first = generate(1)
        return {
            "tokens": spec["batch_size"] * spec["new_tokens"],
            "prefill_seconds": first,
            "decode_seconds": generate(spec["new_tokens"]) - first,
        }

    answer(work, warm_up=1)


if __name__ == "__main__":
    main()
