"""Serving: tokens per second, time to the first token and gaps between tokens, of acorn, llama.cpp and transformers.

Each server gets the same prompts (token ids), one after another from 1, 4 and 16 clients. The same prompt never comes
twice to a server, so that no prefix cache helps. acorn's decoding loop is measured without a server, too. At the end,
four clients have another one beside them whose prompts fill the context. llama.cpp's server and `transformers serve`
run in an environment of their own (benchmarks/serving.txt).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import acorn
from acorn.checkpoint.model_folder import write_model_folder
from acorn.config import ModelConfig
from acorn.export.gguf import write_gguf
from acorn.model.gpt import GPT
from acorn.runtime.device import usable_cores
from benchmarks.generation import MODELS, VOCAB_SIZES
from benchmarks.load import Measured, put_load

ROOT = Path(__file__).resolve().parent.parent
NEW_TOKENS = 64
PROMPT_TOKENS = (69, 400)
CLIENTS = (1, 4, 16)
SLOTS = max(CLIENTS)
LONG_PROMPT_CLIENTS = 4
ENGINE_BODIES = 500
"""Requests that the decoding loop without a server gets; after the last the first comes again."""
SPINS = "10000"
"""As the command `acorn` sets it: how often an idle thread of GNU OpenMP looks for work before it sleeps."""
LONGEST_START = 300.0
"""Seconds after which a server that does not answer is given up."""
WAYS = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
}


@dataclass(frozen=True)
class Server:
    """A program that serves.

    Attributes:
        command: starts it.
        more: fields of its requests; null: it is left out.
        ways: which of WAYS it is measured with.
        takes_ids: it takes token ids as a prompt; otherwise it gets their text, which it may split otherwise.
    """

    name: str
    command: list[str]
    port: int
    more: dict[str, Any]
    ways: tuple[str, ...] = tuple(WAYS)
    takes_ids: bool = True

    def measure(self, bodies: Iterator[dict[str, Any]], clients: int, seconds: float) -> dict[str, float]:
        """What the clients saw."""
        return asyncio.run(put_load(("127.0.0.1", self.port), bodies, clients=clients, seconds=seconds)).facts()


@dataclass
class EngineAlone:
    """acorn's decoding loop in a process of its own, without a server."""

    folder: Path
    name: str = "acorn without a server"
    ways: tuple[str, ...] = tuple(WAYS)
    takes_ids: bool = True
    more: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def measure(self, bodies: Iterator[dict[str, Any]], clients: int, seconds: float) -> dict[str, float]:
        """Its rate, with as many texts at a time as there are clients."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        spec = {"bodies": list(itertools.islice(bodies, ENGINE_BODIES)), "clients": clients, "seconds": seconds}
        self.process.stdin.write(json.dumps(spec) + "\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self.process.stdout.readline())
        return found


def measure_serving(
    names: Sequence[str],
    python: str | None,
    rounds: int,
    seconds: float,
    only: str,
    say: Callable[[str], None],
    clients: Sequence[int] = CLIENTS,
    prompts: Sequence[int] = PROMPT_TOKENS,
) -> dict[str, Any]:
    """A list of rows for each model, number of clients, length of prompts, and way to choose tokens.

    Args:
        python: interpreter of the environment of benchmarks/serving.txt; None: acorn alone is measured.
        seconds: of a turn of a server; each has one in every round.
    """
    tables: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="acorn-bench-") as place:
        for name in names:
            say(f"serving {name}: writing the model")
            folder, tokenizer = _write(Path(place), name)
            with contextlib.ExitStack() as stack:
                every = _servers(folder, name, python, tokenizer)
                servers = [one for one in every if any(part in one.name for part in only.split(","))]
                for server in servers:
                    say(f"{server.name}: starting")
                    stack.enter_context(_engine(server) if isinstance(server, EngineAlone) else _running(server))
                for n_clients in clients:
                    for n_prompt in prompts:
                        for way in WAYS:
                            task = f"{name}, {n_clients} clients, prompts of {n_prompt} tokens, {way}"
                            tables[task] = _turns(
                                [one for one in servers if way in one.ways],
                                rounds,
                                seconds,
                                n_clients,
                                n_prompt,
                                WAYS[way],
                                tokenizer,
                                say,
                            )
                            _print(task, tables[task])
                task = f"{name}, {LONG_PROMPT_CLIENTS} clients beside prompts of the whole context"
                tables[task] = _beside_long_prompts(servers, MODELS[name]["block_size"], rounds, seconds, tokenizer)
                _print(task, tables[task])
    return tables


def _write(place: Path, name: str) -> tuple[Path, acorn.Tokenizer]:
    """A model with random weights as a model folder and as GGUF; returns its folder and tokenizer."""
    tokenizer = acorn.Tokenizer.train(["bundled:wikitext-2"], kind="bpe", vocab_size=VOCAB_SIZES[name])
    config = ModelConfig(vocab_size=tokenizer.vocab_size, **MODELS[name])
    model = GPT(config)
    model.init_weights(0)
    folder = place / name
    write_gguf(Path(f"{folder}.gguf"), config, dict(model.named_parameters()), tokenizer, "f32", name)
    write_model_folder(folder, model, tokenizer, "A model with random weights.\n")
    return folder, tokenizer


def _servers(folder: Path, name: str, python: str | None, tokenizer: acorn.Tokenizer) -> list[Server | EngineAlone]:
    """acorn, and the others where their environment is there."""
    context = MODELS[name]["block_size"]
    ports = [_free_port() for _ in range(3)]
    endless = {"logit_bias": {str(tokenizer.separator_id): -100}}  # texts of the same length everywhere
    options = ["--slots", str(SLOTS), "--port", str(ports[0])]
    command = [sys.executable, "-m", "acorn", "serve", str(folder), *options]
    found: list[Server | EngineAlone] = [Server("acorn serve", command, ports[0], endless), EngineAlone(folder)]
    if python:
        spec = {
            "file": f"{folder}.gguf",
            "slots": SLOTS,
            "context": context,
            "threads": usable_cores(),
            "port": ports[1],
        }
        command = [python, str(ROOT / "benchmarks/contenders/llama_server.py"), json.dumps(spec)]
        more = {"ignore_eos": True, "cache_prompt": False}
        found.append(Server("llama.cpp's server", command, ports[1], more))
        script = Path(python).parent / "transformers"
        command = [str(script), "serve", str(folder), "--device", "cpu", "--port", str(ports[2])]
        more = {"model": str(folder), "top_k": None}
        found.append(Server("transformers serve", command, ports[2], more, ("sampled",), takes_ids=False))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(server: Server) -> Iterator[None]:
    """The server, from when it answers until the end of the block."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    process = subprocess.Popen(
        server.command,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")},
        stdout=errors,
        stderr=errors,
    )
    try:
        end = time.monotonic() + LONGEST_START
        while not _answers(server.port):
            if process.poll() is not None or time.monotonic() > end:
                errors.seek(0)
                raise SystemExit(f"{server.name} does not start:\n{errors.read().decode(errors='replace')[-3000:]}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
        errors.close()


@contextlib.contextmanager
def _engine(engine: EngineAlone) -> Iterator[None]:
    """The process of the decoding loop, until the end of the block."""
    engine.process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.contenders.engine_alone", str(engine.folder)],
        cwd=ROOT,
        env=os.environ | {"GOMP_SPINCOUNT": SPINS, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield
    finally:
        engine.process.kill()
        engine.process.wait()


def _answers(port: int) -> bool:
    for route in ("ready", "health"):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{route}", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                return False
        except OSError:
            return False
    return False


def _turns(
    servers: Sequence[Server | EngineAlone],
    rounds: int,
    seconds: float,
    n_clients: int,
    n_prompt: int,
    way: dict[str, Any],
    tokenizer: acorn.Tokenizer,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Lets the servers work in turns; returns a row of medians for each."""
    seen: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in servers:
            bodies = _bodies(random.Random(f"{number} {n_clients} {n_prompt} {way}"), n_prompt, tokenizer, way, server)
            seen[server.name].append(server.measure(bodies, n_clients, seconds))
        rates = ", ".join(f"{name} {turns[-1]['tokens_per_second']:,.0f}" for name, turns in seen.items())
        say(f"round {number + 1} of {rounds}: {rates} tokens/s")
    return _medians(seen)


def _beside_long_prompts(
    servers: Sequence[Server | EngineAlone], context: int, rounds: int, seconds: float, tokenizer: acorn.Tokenizer
) -> list[dict[str, Any]]:
    """What clients with short prompts see while another one sends prompts that fill the context, for one new token."""
    seen: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        for server in servers:
            if isinstance(server, EngineAlone) or not server.takes_ids:
                continue
            address, way = ("127.0.0.1", server.port), WAYS["sampled"]
            short = _bodies(random.Random(f"short {number}"), min(PROMPT_TOKENS), tokenizer, way, server)
            long = _bodies(random.Random(f"long {number}"), context - 1, tokenizer, way, server, new_tokens=1)

            async def both(address: Any = address, short: Any = short, long: Any = long) -> Measured:
                loads = (put_load(address, short, clients=LONG_PROMPT_CLIENTS, seconds=seconds),
                         put_load(address, long, clients=1, seconds=seconds))  # fmt: skip
                return (await asyncio.gather(*loads))[0]

            seen.setdefault(server.name, []).append(asyncio.run(both()).facts())
    return _medians(seen)


def _medians(seen: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A row for each server: the medians over its turns."""
    return [
        {"name": name, **{key: statistics.median(turn[key] for turn in turns if key in turn) for key in turns[0]}}
        for name, turns in seen.items()
    ]


def _bodies(
    order: random.Random,
    n_prompt: int,
    tokenizer: acorn.Tokenizer,
    way: dict[str, Any],
    server: Server | EngineAlone,
    new_tokens: int = NEW_TOKENS,
) -> Iterator[dict[str, Any]]:
    """Requests with different prompts of random ids; control tokens and bytes, which come first, are left out."""
    fields = {name: value for name, value in (way | server.more).items() if value is not None}
    while True:
        ids = [order.randrange(300, tokenizer.vocab_size) for _ in range(n_prompt)]
        prompt = ids if server.takes_ids else tokenizer.decode(ids)
        yield {"prompt": prompt, "max_tokens": new_tokens, "seed": order.randrange(2**31), **fields}


def _print(task: str, rows: Sequence[dict[str, Any]]) -> None:
    print(f"\n{task}")
    print(f"{'':24}{'tokens/s':>10}{'first p50':>12}{'p99':>8}{'gap p50':>10}{'p99':>8}   milliseconds")
    for row in rows:
        times = [1000 * row.get(key, float("nan")) for key in ("first_p50", "first_p99", "gap_p50", "gap_p99")]
        cells = "".join(f"{value:>{width},.0f}" for value, width in zip(times, (12, 8, 10, 8), strict=True))
        refused = f"   {row['refused']:,.0f} refused" if row["refused"] else ""
        print(f"{row['name']:24}{row['tokens_per_second']:>10,.0f}{cells}{refused}")
