"""The initial weights of a head that predicts values: ridge regression on the base model's activations.

A random head would first have to learn the scale and the mean of the values, at a learning rate that is meant for small
changes of the other weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from acorn.data.example_batches import grouped, padded
from acorn.data.examples import TokenExample
from acorn.model.gpt import GPT
from acorn.runtime.device import Runtime

EXAMPLES = 1024
"""The regression uses at most this many examples."""

PENALTY = 1e-3
"""The penalty of the squared weights, as a share of the mean squared feature."""


@torch.no_grad()
def begin_value_head(model: GPT, examples: Sequence[TokenExample], runtime: Runtime, pad_id: int) -> None:
    """Sets the head's weights by ridge regression on the network's current activations. Deterministic.

    Args:
        examples: training examples; the first ones are used.
    """
    assert model.score is not None
    some, context = examples[:EXAMPLES], model.config.block_size
    features = torch.empty(len(some), model.config.n_embd, dtype=torch.float64)
    was_training = model.training
    model.eval()
    for numbers, length in grouped([len(one.ids) for one in some], context, 8 * context):
        ids, _, _ = padded([some[number] for number in numbers], length, pad_id)
        with runtime.autocast():
            hidden = model.hidden(ids.to(model.device))  # (B, T, C)
        for row, number in enumerate(numbers):
            features[number] = hidden[row, int(some[number].rows[-1])].double().cpu()
    model.train(was_training)
    values = torch.stack([torch.from_numpy(one.values[-1]) for one in some]).double()  # (n, L)
    gram = features.T @ features
    penalty = PENALTY * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weights = torch.linalg.solve(gram + penalty, features.T @ values)  # (C, L)
    model.score.weight.copy_(weights.T)
