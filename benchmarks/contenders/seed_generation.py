"""Generating as the seed did: every token reads the whole text again."""

from __future__ import annotations

import time

import torch

from benchmarks.contenders.answering import answer, specification
from benchmarks.contenders.seed_model import SeedModel


def main() -> None:
    spec = specification()
    model = SeedModel(**spec["seed_model"]).eval()
    ids = torch.tensor([spec["ids"]]).expand(spec["batch_size"], -1)

    def work() -> dict[str, float]:
        begin = time.perf_counter()
        model.generate(ids, 1)
        first = time.perf_counter() - begin
        begin = time.perf_counter()
        model.generate(ids, spec["new_tokens"])
        return {
            "tokens": spec["batch_size"] * spec["new_tokens"],
            "prefill_seconds": first,
            "decode_seconds": time.perf_counter() - begin - first,
        }

    answer(work, warm_up=1)


if __name__ == "__main__":
    main()
