"""Training with acorn: the step of `acorn pretrain`, on a batch in memory."""

from __future__ import annotations

import time

import torch

from acorn.config import Config
from acorn.config_files import with_values
from acorn.run.resolve import choose_runtime
from acorn.train.forward_backward import training_forward_backward
from acorn.train.network import build_network
from acorn.train.optimizer import NEWTON_SCHULZ_STEPS, Muon, Optimizer, set_rates
from acorn.train.step import initial_counters, train_step
from acorn.train.training_data import Batch
from benchmarks.contenders.answering import answer, specification


def main() -> None:
    spec = specification()
    config = with_values(Config(), spec["acorn"])
    runtime = choose_runtime(config.train)
    with runtime.start():
        model, optimizers = build_network(config, runtime)
        model.init_weights(0)
        set_rates(optimizers, 0.1)
        counters = initial_counters(1, runtime.precision)
        forward_backward = training_forward_backward(model, runtime)
        batch_size, length = config.train.batch_size, config.model.block_size
        text = torch.randint(config.model.vocab_size, (batch_size, length + 1))
        batch = Batch.of_windows(text[:, :-1], text[:, 1:], config.train.micro_batch_size or batch_size)

        def work() -> dict[str, float]:
            result = train_step(
                model,
                forward_backward,
                optimizers,
                batch,
                clip=config.optimizer.clip,
                seed=0,
                counters=counters,
                runtime=runtime,
            )
            counters.step += 1
            update = {"update_seconds": spent[0], "update_flops": flops}
            return {"tokens": batch.tokens, "loss": result.loss, **update}

        spent, flops = _time_updates(optimizers), iteration_flops(optimizers[-1])
        answer(work, warm_up=spec["warm_up"], device=runtime.device)


def iteration_flops(optimizer: Optimizer) -> int:
    """FLOPs of the matmuls in Muon's iterations of an update; 0 for another optimizer.

    An iteration multiplies a matrix x (m, n), m <= n, with its transpose (2 m m n FLOPs), the result with itself
    (2 m m m), and a polynomial of both with x (2 m m n).
    """
    if not isinstance(optimizer, Muon):
        return 0
    shapes = [sorted(p.shape) for group in optimizer.param_groups for p in group["params"]]
    return NEWTON_SCHULZ_STEPS * sum(4 * m * m * n + 2 * m**3 for m, n in shapes)


def _time_updates(optimizers: list[Optimizer]) -> list[float]:
    """Makes the last optimizer (Muon, if it is used) record the seconds of each update; a turn adds them up."""
    spent = [0.0]
    step = optimizers[-1].step

    def timed_step() -> None:
        begin = time.perf_counter()
        step()
        spent[0] = time.perf_counter() - begin

    optimizers[-1].step = timed_step  # type: ignore[method-assign]
    return spent


if __name__ == "__main__":
    main()
