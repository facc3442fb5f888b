"""Generation as in the original: every token recomputes the whole text, without a cache."""

from __future__ import annotations

import time

import torch

from benchmarks.contenders.answering import answer, specification
from benchmarks.contenders.original_model import OriginalModel

TIMED_LENGTH_INTERVAL = 16
"""One of so many text lengths is timed and stands for the others, because the time depends on the length only."""


def main() -> None:
    spec = specification()
    model = OriginalModel(**spec["original_model"]).eval()
    prompt, new_tokens, batch_size = len(spec["ids"]), spec["new_tokens"], spec["batch_size"]
    text = torch.randint(spec["original_model"]["vocab_size"], (batch_size, prompt + new_tokens))

    def one_token(length: int) -> float:
        begin = time.perf_counter()
        model.generate(text[:, :length], 1)
        return time.perf_counter() - begin

    def work() -> dict[str, float]:
        lengths = range(prompt + TIMED_LENGTH_INTERVAL // 2, prompt + new_tokens, TIMED_LENGTH_INTERVAL)
        mean = sum(map(one_token, lengths)) / len(lengths)
        return {
            "tokens": batch_size * (1 + len(lengths)),  # the tokens that are actually generated
            "prefill_seconds": one_token(prompt),
            "decode_seconds": mean * (new_tokens - 1),
        }

    answer(work, warm_up=1)


if __name__ == "__main__":
    main()
