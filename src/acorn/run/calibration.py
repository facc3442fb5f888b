"""Estimates the time of a training step on this machine from a few steps of one- and two-layer networks."""

from __future__ import annotations

import time

import torch

from acorn.config import Config
from acorn.config_files import with_values
from acorn.model.loss import Workspace
from acorn.progress import QUIET, Progress
from acorn.run.resolve import COMPILED_GAIN
from acorn.runtime.device import Runtime
from acorn.train.forward_backward import uncompiled_forward_backward
from acorn.train.network import build_network
from acorn.train.optimizer import set_rates
from acorn.train.parallel import uncompiled
from acorn.train.step import initial_counters, train_step
from acorn.train.training_data import Batch

MAX_MEASURED_TOKENS = {"cpu": 2048, "mps": 2048, "cuda": 16384}
"""Device -> most tokens of a measured micro-batch. The time of larger ones is scaled up in proportion."""

QUICK_STEP_SECONDS = 0.3
"""If a step of one layer and one micro-batch takes less, the measured micro-batches get twice as many tokens."""

MIN_SECONDS, MIN_ROUNDS, MAX_SECONDS = 4.0, 3, 10.0
"""All variants are timed in turn, in rounds: at least so long and so many, but no round starts after MAX_SECONDS."""

TASK = "timing training steps of one and two layers"


def seconds_per_step(config: Config, runtime: Runtime, micro_batch_size: int, progress: Progress = QUIET) -> float:
    """Seconds of one optimizer step of `config`, forward, backward and update.

    Networks of one and two layers are timed, with one and with two micro-batches per step. The differences give the
    time of a micro-batch and of an optimizer update, per layer and for the rest of the network. From these follows the
    time for any depth and number of micro-batches. The four variants are timed in turn, because the speed of a shared
    machine varies. Steps are timed without compilation; for a compiled run, micro-batches are assumed to be faster by
    `COMPILED_GAIN`.

    Args:
        config: with model.vocab_size set.
        micro_batch_size: sequences per micro-batch.
        progress: is told of every step that is timed.
    """
    model, train = config.model, config.train
    sequences, shortest = _measure(config, runtime, micro_batch_size, progress)
    depths = sorted({depth for depth, _ in shortest})
    passes = [shortest[depth, 2] - shortest[depth, 1] for depth in depths]
    updates = [2 * shortest[depth, 1] - shortest[depth, 2] for depth in depths]
    gain = 1 + COMPILED_GAIN[runtime.precision] if runtime.compile else 1.0
    one_pass = _at_depth(passes, model.n_layer) * train.batch_size / sequences / gain
    return one_pass + _at_depth(updates, model.n_layer)


def _at_depth(seconds: list[float], depth: int) -> float:
    """Extrapolates from one and two layers to `depth`. Negative values, which come from noise, count as 0."""
    one, two = max(0.0, seconds[0]), max(0.0, seconds[-1])
    return one + (depth - 1) * max(0.0, two - one)


def _measure(
    config: Config, runtime: Runtime, most: int, progress: Progress
) -> tuple[int, dict[tuple[int, int], float]]:
    """Sequences of a measured micro-batch, `most` at most; (layers, micro-batches) -> seconds of the fastest step."""
    tokens = MAX_MEASURED_TOKENS[runtime.device]
    progress.at(TASK, 0, 0, "steps")
    done = 0
    with runtime.start(), uncompiled(runtime), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        logits = Workspace()  # shared, as a run has only one: 28,144 entries in fp32 take 231 MB
        networks = {n: _Network(config, runtime, n, logits) for n in range(1, min(2, config.model.n_layer) + 1)}
        sequences = max(1, min(most, tokens // config.model.block_size))
        for _ in range(2):  # the first step of a process takes longer
            seconds = networks[1].step(1, sequences)
        if runtime.device != "cuda" and seconds < QUICK_STEP_SECONDS:  # a GPU has captured the first size
            sequences = max(1, min(most, 2 * tokens // config.model.block_size))
        for network in networks.values():
            network.step(2, sequences)
        shortest: dict[tuple[int, int], float] = {}
        begin, rounds = time.perf_counter(), 0
        while time.perf_counter() - begin < (MIN_SECONDS if rounds >= MIN_ROUNDS else MAX_SECONDS):
            for depth, network in networks.items():
                for passes in (1, 2):
                    seconds = network.step(passes, sequences)
                    shortest[depth, passes] = min(seconds, shortest.get((depth, passes), seconds))
                    done += 1
                    progress.at(TASK, done, 0, "steps")
            rounds += 1
    progress.end(TASK)
    return sequences, shortest


class _Network:
    """The network of `config` with `depth` layers, for timing steps on random tokens.

    Args:
        logits: the workspace that the head writes its logits to.
    """

    def __init__(self, config: Config, runtime: Runtime, depth: int, logits: Workspace) -> None:
        self._config, self._runtime = with_values(config, {"model.n_layer": depth}), runtime
        self._model, self._optimizers = build_network(self._config, runtime, logits)
        self._model.init_weights(0)
        set_rates(self._optimizers, 0.01)
        self._forward_backward = uncompiled_forward_backward(self._model, runtime)
        self._counters = initial_counters(1, runtime.precision)  # kept, as fp16's loss scale drops in the first steps

    def step(self, passes: int, sequences: int) -> float:
        """Seconds of one step with `passes` micro-batches of `sequences` sequences each."""
        model = self._config.model
        text = torch.randint(model.vocab_size, (passes * sequences, model.block_size + 1))
        batch = Batch.of_windows(text[:, :-1], text[:, 1:], sequences)
        begin = time.perf_counter()
        train_step(
            self._model,
            self._forward_backward,
            self._optimizers,
            batch,
            clip=self._config.optimizer.clip,
            seed=0,
            counters=self._counters,
            runtime=self._runtime,
        )
        if self._runtime.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin
