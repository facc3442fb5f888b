"""Tokenization speed: `acorn data prepare` compared with the bare tokenizers library and with datasets.map; and
`acorn tokenizer train` compared with the library's trainer."""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import acorn
from acorn.config import DataConfig
from acorn.runtime.device import usable_cores
from acorn.text.splits import TextSplits
from benchmarks.turns import Contender, take_turns


def write_corpus(path: Path, megabytes: int) -> int:
    """Writes WikiText-2's rows repeatedly, each with a counter and a few random words, so that all are distinct.

    Returns:
        bytes of text.
    """
    splits = TextSplits.open(DataConfig(source=("bundled:wikitext-2",)))
    rows = [document.text.strip() for document in splits.documents("train") if document.text.strip()]
    words = sorted({word for row in rows[:2000] for word in row.split()})
    rng = random.Random(0)
    written = number = 0
    with path.open("w", encoding="utf-8") as out:
        while written < megabytes * 1_000_000:
            for row in rows:
                text = f"{number} {' '.join(rng.choices(words, k=8))} {row}"
                out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                written += len(text.encode())
                number += 1
                if written >= megabytes * 1_000_000:
                    break
    return written


def measure_text(megabytes: int, rounds: int, say: Any) -> dict[str, Any]:
    """One table for each kind of tokenizer. A turn processes the whole text."""
    tables = {}
    with tempfile.TemporaryDirectory(prefix="acorn-bench-") as folder:
        text = Path(folder) / "text.jsonl"
        say(f"writing {megabytes:,} MB of text")
        n_bytes = write_corpus(text, megabytes)
        for kind in ("bpe", "wordpiece"):
            tokenizer = Path(folder) / f"{kind}.json"
            acorn.Tokenizer.train(["bundled:wikitext-2"], kind=kind, vocab_size=8192).save(tokenizer)
            common = {"text": str(text), "tokenizer": str(tokenizer), "bytes": n_bytes}
            contenders = [
                Contender("acorn data prepare", "text_to_tokens", common | {"way": "acorn"}),
                Contender("encode_batch alone", "text_to_tokens", common | {"way": "bare"}),
                Contender("datasets.map", "text_to_tokens", common | {"way": "datasets.map", "processes": None}),
                Contender(
                    "datasets.map, a process a core",
                    "text_to_tokens",
                    common | {"way": "datasets.map", "processes": usable_cores()},
                ),
            ]
            learning = {"text": str(text), "kind": kind, "vocab_size": 8192, "bytes": n_bytes}
            trainers = [
                Contender("acorn tokenizer train", "tokenizer_training", learning | {"way": "acorn"}),
                Contender("the trainer alone", "tokenizer_training", learning | {"way": "bare"}),
            ]
            for name, group in ((f"learning {kind}", trainers), (kind, contenders)):
                take_turns(group, rounds=rounds, seconds=0, say=say)
                tables[name] = {"bytes": n_bytes, "contenders": [_with_encoding_alone(c) for c in group]}
                _print(name, tables[name])
    return tables


def _with_encoding_alone(contender: Contender) -> dict[str, Any]:
    """The facts, with the speed of encoding alone if it was timed separately."""
    facts = contender.facts()
    seconds = [turn["encode_seconds"] for turn in contender.turns if "encode_seconds" in turn]
    if seconds:
        facts["encoding_alone"] = contender.turns[0]["tokens"] / statistics.median(seconds)
    return facts


def _print(kind: str, table: dict[str, Any]) -> None:
    print(f"\n{kind}, {table['bytes'] / 1e6:,.0f} MB of text")
    print(f"{'':32}{'MB/s':>8}{'memory':>11}")
    for row in table["contenders"]:
        if "failure" in row:
            print(f"{row['name']:32}not measured: {row['failure']}")
            continue
        alone = f"   encoding alone {row['encoding_alone'] / 1e6:.2f}" if "encoding_alone" in row else ""
        print(f"{row['name']:32}{row['tokens_per_second'] / 1e6:>8.2f}{row['peak_bytes'] / 2**20:>7,.0f} MiB{alone}")
    sys.stdout.flush()
