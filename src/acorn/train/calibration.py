"""How long a step will take on this machine, from a few steps of a shallow copy of the network."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch

from acorn.config import Config
from acorn.config_files import with_values
from acorn.runtime.device import COMPILED_GAIN, Runtime
from acorn.train.network import build_network
from acorn.train.optimizer import set_rates
from acorn.train.passes import uncompiled_pass
from acorn.train.step import initial_counters, train_step

MOST_TOKENS = {"cpu": 2048, "mps": 2048, "cuda": 16384}
"""Device -> tokens of a measured pass at the most; longer passes take as much longer as they have more tokens."""

REPEAT_SECONDS = 0.5
"""Steps are repeated as long as this, and the shortest counts; one that takes longer is done once."""


def seconds_per_step(config: Config, runtime: Runtime, micro_batch_size: int) -> float:
    """Seconds of one optimizer step of `config`, forward, backward and update.

    Networks of one and of two layers are timed, with one pass a step and with two. From these come the time of a pass
    and of an update, each for the layers and for what stands once, which add up to any depth and number of passes.
    Measured without compiling; where the run is compiled, passes are taken to be faster by `COMPILED_GAIN`.

    Args:
        config: with model.vocab_size set.
        micro_batch_size: sequences of a pass.
    """
    model, train = config.model, config.train
    sequences = max(1, min(micro_batch_size, MOST_TOKENS[runtime.device] // model.block_size))
    passes, updates = zip(*(_measure(config, runtime, depth, sequences) for depth in (1, 2)), strict=True)
    gain = 1 + COMPILED_GAIN[runtime.precision] if runtime.compile else 1.0
    one_pass = _at_depth(passes, model.n_layer) * train.batch_size / sequences / gain
    return one_pass + _at_depth(updates, model.n_layer)


def _at_depth(of_one_and_two: tuple[float, ...], depth: int) -> float:
    one, two = of_one_and_two
    return one + (depth - 1) * max(0.0, two - one)


def _measure(config: Config, runtime: Runtime, depth: int, sequences: int) -> tuple[float, float]:
    """Seconds of a pass and of an update with `depth` layers, each the shortest of some."""
    config = with_values(config, {"model.n_layer": depth})
    with runtime.start(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        model, optimizers = build_network(config, runtime)
        model.init_weights(0)
        set_rates(optimizers, 0.01)
        counters = initial_counters(1, runtime.precision)
        run_pass = uncompiled_pass(model, runtime)
        ids = torch.randint(config.model.vocab_size, (2 * sequences, config.model.block_size + 1))

        def seconds(passes: int) -> float:
            text = ids[: passes * sequences]
            begin = time.perf_counter()
            train_step(
                model,
                run_pass,
                optimizers,
                text[:, :-1],
                text[:, 1:],
                micro_batch_size=sequences,
                clip=config.optimizer.clip,
                seed=0,
                counters=counters,
                runtime=runtime,
            )
            if runtime.device == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - begin

        seconds(2)  # the first step of a process takes longer
        one, two = (_shortest(functools.partial(seconds, passes)) for passes in (1, 2))
    return max(two - one, 0.0), max(2 * one - two, 0.0)


def _shortest(work: Callable[[], float]) -> float:
    """The least of what `work` gives."""
    begin, best = time.perf_counter(), work()
    while time.perf_counter() - begin < REPEAT_SECONDS:
        best = min(best, work())
    return best
