"""Text generation: prefill and decode speed of acorn, the original and other programs, for one prompt and for 16."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import acorn
from acorn.checkpoint.model_folder import write_model_folder
from acorn.config import ModelConfig
from acorn.export.gguf import write_gguf
from acorn.model.gpt import GPT
from acorn.model.sizing import size_of
from acorn.runtime.device import usable_cores
from benchmarks.machine import read_bandwidth
from benchmarks.turns import Contender, take_turns

MODELS = {
    "original-sizes": {"architecture": "modern", "n_layer": 6, "n_head": 8, "n_embd": 512, "block_size": 512},
    "124m": {"architecture": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024},
}
VOCAB_SIZES = {"original-sizes": 28_144, "124m": 50_304}
BYTES_PER_ELEMENT = {"fp32": 4, "bf16": 2, "int8": 1}
PROMPT_TEXT = "The history of the town began when the river was bridged and the first mill was built beside it . "


def measure_generation(
    names: list[str], batch_sizes: list[int], rounds: int, only: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """A table (list of rows) for each model and batch size."""
    bandwidth = read_bandwidth()
    tables: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="acorn-bench-") as place:
        for name in names:
            say(f"generating {name}: writing the model")
            folder = Path(place) / name
            tokenizer = acorn.Tokenizer.train(["bundled:wikitext-2"], kind="bpe", vocab_size=VOCAB_SIZES[name])
            config = ModelConfig(vocab_size=tokenizer.vocab_size, **MODELS[name])
            model = GPT(config)
            model.init_weights(0)
            for precision, dtype in (("fp32", "f32"), ("bf16", "bf16")):
                write_gguf(
                    Path(f"{folder}-{precision}.gguf"), config, dict(model.named_parameters()), tokenizer, dtype, name
                )
            write_model_folder(folder, model, tokenizer, "A model with random weights.\n")
            prompt = PROMPT_TEXT * 3
            ids = tokenizer.encode_prompt(prompt)
            new_tokens = 512 - len(ids)
            for batch_size in batch_sizes:
                task = f"{name}, {batch_size} x ({len(ids)} + {new_tokens}) tokens"
                common = {
                    "folder": str(folder),
                    "threads": usable_cores(),
                    "prompt": prompt,
                    "ids": ids,
                    "new_tokens": new_tokens,
                    "batch_size": batch_size,
                }
                contenders = [c for c in _contenders(config, common) if only in c.name]
                take_turns(contenders, rounds=rounds, seconds=0, say=say)
                tables[task] = [_row(c, config, common, contenders[0], bandwidth) for c in contenders]
                _print(task, tables[task])
    return tables


def _contenders(config: ModelConfig, common: dict[str, Any]) -> list[Contender]:
    found = [
        Contender(f"{program} {precision}", f"{program}_generation", common | {"precision": precision})
        for precision in ("fp32", "bf16")
        for program in ("acorn", "transformers")
    ]
    found.append(Contender("acorn int8", "acorn_generation", common | {"precision": "int8"}))
    if common["batch_size"] == 1:
        for precision in ("fp32", "bf16"):
            more = {"precision": precision, "file": f"{common['folder']}-{precision}.gguf"}
            found.append(Contender(f"llama.cpp {precision}", "llama_generation", common | more))
        keys = ("vocab_size", "n_layer", "n_head", "n_embd", "block_size")
        sizes = {key: getattr(config, key) for key in keys}
        found.append(Contender("original's loop fp32", "original_generation", common | {"original_model": sizes}))
    return found


def _row(
    contender: Contender, config: ModelConfig, common: dict[str, Any], first: Contender, bandwidth: float
) -> dict[str, Any]:
    """Prefill and decode in tokens/s, and decode as a share of the limit that memory bandwidth sets."""
    facts = contender.facts()
    if contender.failure:
        return facts
    prompt_tokens = common["batch_size"] * len(common["ids"])
    decoded = common["batch_size"] * (common["new_tokens"] - 1)
    decode = decoded / statistics.median(turn["decode_seconds"] for turn in contender.turns)
    width = BYTES_PER_ELEMENT[contender.specification.get("precision", "fp32")]
    mean_context = len(common["ids"]) + common["new_tokens"] / 2
    weights = width * size_of(config).matrix_parameters
    cache = width * 2 * config.n_layer * config.kv_heads * config.head_dim * mean_context * common["batch_size"]
    steps_per_second = decode / common["batch_size"]
    return facts | {
        "prefill_tokens_per_second": prompt_tokens
        / statistics.median(turn["prefill_seconds"] for turn in contender.turns),
        "decode_tokens_per_second": decode,
        "bytes_per_step": weights + cache,
        "share_of_bandwidth": steps_per_second * (weights + cache) / bandwidth,
        "acorn_times_as_fast": first.rate / contender.rate,
    }


def _print(task: str, rows: list[dict[str, Any]]) -> None:
    print(f"\ngenerating: {task}")
    print(f"{'':24}{'prefill':>10}{'decode':>10} tokens/s{'of bandwidth':>14}{'memory':>11}")
    for row in rows:
        if "failure" in row:
            print(f"{row['name']:24}not measured: {row['failure']}")
            continue
        print(
            f"{row['name']:24}{row['prefill_tokens_per_second']:>10,.0f}{row['decode_tokens_per_second']:>10,.1f}"
            f"{row['share_of_bandwidth']:>23.1%}{row['peak_bytes'] / 2**20:>7,.0f} MiB"
        )
    sys.stdout.flush()
