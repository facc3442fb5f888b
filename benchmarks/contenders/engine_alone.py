"""acorn's decoding loop without a server: as many texts at a time as there are clients, one after another.

Prints a line of JSON for each number of seconds on a line of input.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from acorn.checkpoint.load import load
from acorn.generate.decoding import DecodingLoop, Text
from acorn.generate.job import Job
from acorn.generate.prefix_cache import PrefixCache
from acorn.generate.settings import SamplingSettings
from acorn.generate.stepper import Stepper
from acorn.runtime.choose import runtime_for_inference


def main() -> None:
    folder = sys.argv[1]
    runtime = runtime_for_inference("cpu", "auto")
    with runtime.start(), torch.inference_mode():
        loaded = load(folder)
        for line in sys.stdin:
            spec = json.loads(line)
            print(json.dumps(_measured(loaded, spec)), flush=True)


def _measured(loaded: Any, spec: dict[str, Any]) -> dict[str, float]:
    """Tokens per second for the bodies of requests, whose texts all have the same length."""
    stepper = Stepper(loaded.model, spec["clients"])
    separator = loaded.tokenizer.separator_id
    loop = DecodingLoop(
        stepper, frozenset({separator}), [separator], prefixes=PrefixCache(stepper.chunk), interleaved=True
    )
    bodies = _jobs(spec["bodies"])
    tokens, begin = 0, time.perf_counter()
    while loop.n_texts or time.perf_counter() - begin < spec["seconds"]:
        while loop.has_room and time.perf_counter() - begin < spec["seconds"]:
            loop.add(Text(next(bodies), loaded.tokenizer))
        tokens += len(loop.turn())
    return {"tokens_per_second": tokens / (time.perf_counter() - begin), "refused": 0}


def _jobs(bodies: list[dict[str, Any]]) -> Iterator[Job]:
    names = ("temperature", "top_k", "top_p", "seed")
    while True:
        for body in bodies:
            given = {name: body[name] for name in names if name in body}
            yield Job(
                tuple(body["prompt"]), SamplingSettings(max_new_tokens=body["max_tokens"], **{"top_k": 0, **given})
            )


if __name__ == "__main__":
    main()
