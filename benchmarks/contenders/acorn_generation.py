"""Generation with acorn's engine, as in `acorn generate` and `acorn.load(...).generate`."""

from __future__ import annotations

import torch

from acorn.checkpoint.load import load
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.model.int8 import round_to_int8
from benchmarks.contenders.answering import answer, specification

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}


def main() -> None:
    spec = specification()
    loaded = load(spec["folder"], dtype=DTYPES[spec["precision"]])
    int8 = spec["precision"] == "int8"
    if int8:
        round_to_int8(loaded.model)
    settings = SamplingSettings(max_new_tokens=spec["new_tokens"], greedy=True, ignore_eos=True)

    def work() -> dict[str, float]:
        results = generate(loaded.model, loaded.tokenizer, [spec["prompt"]] * spec["batch_size"], settings, int8=int8)
        return {
            "tokens": sum(len(result.new_ids) for result in results),
            "prefill_seconds": results[0].prefill_seconds,
            "decode_seconds": results[0].decode_seconds,
        }

    answer(work, warm_up=1)


if __name__ == "__main__":
    main()
