"""Training of a tokenizer: with the library's trainer, or with `acorn tokenizer train`.

It runs once for each number in the input; a unit of work is the whole text. "tokens" counts bytes of text here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contenders.answering import answer_in_turns, peak_bytes
from benchmarks.contenders.text_to_tokens import run_acorn


def bare(spec: dict[str, Any]) -> dict[str, Any]:
    """Reading lines and the library's trainer, as in its documentation, with acorn's pre-tokenizer."""
    from tokenizers import models, trainers

    from acorn.tokenizer import bpe, wordpiece

    settings = {"vocab_size": spec["vocab_size"], "show_progress": False}
    if spec["kind"] == "bpe":
        tokenizer = bpe.reader(models.BPE())
        trainer = trainers.BpeTrainer(initial_alphabet=bpe.alphabet(), **settings)
    else:
        tokenizer = wordpiece.reader()
        trainer = trainers.WordPieceTrainer(special_tokens=["[UNK]"], **settings)
    tokenizer.train_from_iterator(_rows(spec["text"]), trainer)
    return {"entries": tokenizer.get_vocab_size(), "peak_bytes": peak_bytes()}


def _rows(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def acorn(spec: dict[str, Any]) -> dict[str, Any]:
    """The command in a separate process, as a user runs it; it also measures the tokenizer on held-out text."""
    out = Path(spec["text"]).with_suffix(f".{spec['kind']}.json")
    options = ["--kind", spec["kind"], "--vocab-size", str(spec["vocab_size"])]
    return {"peak_bytes": run_acorn(["tokenizer", "train", *options, "--input", spec["text"]], out)}


WAYS = {"bare": bare, "acorn": acorn}


if __name__ == "__main__":
    answer_in_turns(WAYS)
