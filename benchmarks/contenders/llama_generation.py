"""Greedy generation with llama.cpp, through its Python binding."""

from __future__ import annotations

import time

import llama_cpp
import numpy as np

from benchmarks.contenders.answering import answer, specification

CACHE_TYPES = {"fp32": 0, "bf16": 1}  # GGML's types f32 and f16 (its default)


def main() -> None:
    spec = specification()
    length = len(spec["ids"]) + spec["new_tokens"]
    cache = CACHE_TYPES[spec["precision"]]
    model = llama_cpp.Llama(
        spec["file"],
        n_ctx=length,
        n_batch=length,
        n_threads=spec["threads"],
        n_threads_batch=spec["threads"],
        type_k=cache,
        type_v=cache,
        verbose=False,
    )

    def work() -> dict[str, float]:
        model.reset()
        begin = time.perf_counter()
        model.eval(spec["ids"])
        token = _likeliest(model)
        first = time.perf_counter() - begin
        begin = time.perf_counter()
        for _ in range(spec["new_tokens"] - 1):
            model.eval([token])
            token = _likeliest(model)
        return {
            "tokens": spec["new_tokens"],
            "prefill_seconds": first,
            "decode_seconds": time.perf_counter() - begin,
        }

    answer(work, warm_up=1)


def _likeliest(model: llama_cpp.Llama) -> int:
    logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
    return int(np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).argmax())


if __name__ == "__main__":
    main()
