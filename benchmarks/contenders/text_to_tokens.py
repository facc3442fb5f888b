"""Text to token ids: with the library's `encode_batch`, `acorn data prepare`, or datasets.map.

It runs once for each number in the input; a unit of work is the whole text. "tokens" counts bytes of text here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.contenders.answering import answer_in_turns, peak_bytes

BATCH_CHARACTERS = 1 << 22  # the same as acorn's batches


def bare(spec: dict[str, Any]) -> dict[str, Any]:
    """Only reads lines and encodes them; the ids are discarded."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(spec["tokenizer"])
    seconds, batch, size, count = 0.0, [], 0, 0
    with open(spec["text"], encoding="utf-8") as lines:
        for line in lines:
            batch.append(json.loads(line)["text"])
            size += len(batch[-1])
            if size >= BATCH_CHARACTERS:
                begin = time.perf_counter()
                count += sum(map(len, tokenizer.encode_batch(batch, add_special_tokens=False)))
                seconds += time.perf_counter() - begin
                batch, size = [], 0
    begin = time.perf_counter()
    count += sum(map(len, tokenizer.encode_batch(batch, add_special_tokens=False)))
    return {"encode_seconds": seconds + time.perf_counter() - begin, "ids": count, "peak_bytes": peak_bytes()}


def acorn(spec: dict[str, Any]) -> dict[str, Any]:
    """The command in a separate process, as a user runs it."""
    with tempfile.TemporaryDirectory(dir=Path(spec["text"]).parent) as folder:
        out = Path(folder) / "shards"
        peak = run_acorn(["data", "prepare", "--tokenizer", spec["tokenizer"], "--input", spec["text"]], out)
        manifest = json.loads((out / "manifest.json").read_bytes())
        return {"ids": sum(split["tokens"] for split in manifest["splits"].values()), "peak_bytes": peak}


def run_acorn(command: list[str], out: Path) -> int:
    """Runs `acorn` with this command and `--out`; returns its peak memory in bytes."""
    program = "import runpy, sys; from benchmarks.contenders.answering import peak_bytes\n"
    program += "try: runpy.run_module('acorn', run_name='__main__')\n"
    program += "finally: print(peak_bytes(), file=open(sys.argv[-1] + '.peak', 'w'))"
    subprocess.run([sys.executable, "-c", program, *command, "--out", str(out)], check=True)
    return int(Path(f"{out}.peak").read_text())


def datasets_map(spec: dict[str, Any]) -> dict[str, Any]:
    """A Hub dataset mapped in batches, as in most tutorials, optionally with one process per core."""
    import datasets
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(spec["tokenizer"])

    def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"ids": [e.ids for e in tokenizer.encode_batch(rows["text"], add_special_tokens=False)]}

    folder = tempfile.mkdtemp(dir=Path(spec["text"]).parent)
    try:
        rows = datasets.load_dataset("json", data_files=spec["text"], split="train", cache_dir=folder)
        rows = rows.map(encode, batched=True, remove_columns=["text"], num_proc=spec["processes"])
        return {"ids": len(rows), "peak_bytes": peak_bytes()}
    finally:
        shutil.rmtree(folder)


WAYS = {"bare": bare, "acorn": acorn, "datasets.map": datasets_map}


if __name__ == "__main__":
    answer_in_turns(WAYS)
