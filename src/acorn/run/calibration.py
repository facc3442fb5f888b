"""How long a step will take on this machine, from a few steps of shallow copies of the network."""

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

TOKENS = {"cpu": 2048, "mps": 2048, "cuda": 16384}
"""Device -> tokens of a measured pass at the most; longer passes take as much longer as they have more tokens."""

QUICK_PASS = 0.3
"""Seconds; where a step of one layer and one pass takes less, the measured passes have twice as many tokens."""

SECONDS, ROUNDS, MOST_SECONDS = 4.0, 3, 10.0
"""What is timed takes turns, for so long and so often at least, but no turn begins after the last of these."""


TASK = "timing training steps of one and two layers"


def seconds_per_step(config: Config, runtime: Runtime, micro_batch_size: int, progress: Progress = QUIET) -> float:
    """Seconds of one optimizer step of `config`, forward, backward and update.

    Networks of one and of two layers are timed, with one pass a step and with two. From these come the time of a pass
    and of an update, each for the layers and for what stands once, which add up to any depth and number of passes.
    All four take turns, since a machine with neighbours is not as fast at all times. Measured without compiling; where
    the run is compiled, passes are taken to be faster by `COMPILED_GAIN`.

    Args:
        config: with model.vocab_size set.
        micro_batch_size: sequences of a pass.
        progress: hears of every step that is timed.
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
    """From those of one layer and of two, which noise may have made negative. A single layer needs no second one."""
    one, two = max(0.0, seconds[0]), max(0.0, seconds[-1])
    return one + (depth - 1) * max(0.0, two - one)


def _measure(
    config: Config, runtime: Runtime, most: int, progress: Progress
) -> tuple[int, dict[tuple[int, int], float]]:
    """The sequences of a measured pass, `most` at the most, and (layers, passes) -> the shortest step's seconds."""
    tokens = TOKENS[runtime.device]
    progress.at(TASK, 0, 0, "steps")
    done = 0
    with runtime.start(), uncompiled(runtime), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        logits = Workspace()  # one for both: a run has one, and 28,144 entries in fp32 take 231 MB
        networks = {n: _Network(config, runtime, n, logits) for n in range(1, min(2, config.model.n_layer) + 1)}
        sequences = max(1, min(most, tokens // config.model.block_size))
        for _ in range(2):  # the first step of a process takes longer
            seconds = networks[1].step(1, sequences)
        if runtime.device != "cuda" and seconds < QUICK_PASS:  # on a GPU passes are recorded for their first size
            sequences = max(1, min(most, 2 * tokens // config.model.block_size))
        for network in networks.values():
            network.step(2, sequences)
        shortest: dict[tuple[int, int], float] = {}
        begin, rounds = time.perf_counter(), 0
        while time.perf_counter() - begin < (SECONDS if rounds >= ROUNDS else MOST_SECONDS):
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
    """`config`'s network with `depth` layers, and steps of it on tokens drawn at random.

    Args:
        logits: where its head writes them.
    """

    def __init__(self, config: Config, runtime: Runtime, depth: int, logits: Workspace) -> None:
        self._config, self._runtime = with_values(config, {"model.n_layer": depth}), runtime
        self._model, self._optimizers = build_network(self._config, runtime, logits)
        self._model.init_weights(0)
        set_rates(self._optimizers, 0.01)
        self._forward_backward = uncompiled_forward_backward(self._model, runtime)
        self._counters = initial_counters(1, runtime.precision)  # kept: fp16's loss scale comes down in the first steps

    def step(self, passes: int, sequences: int) -> float:
        """Seconds of a step with so many passes of so many sequences each."""
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
