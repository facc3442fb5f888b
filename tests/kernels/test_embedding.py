"""Embeddings with in-place gradient accumulation, compared with PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acorn.config import ModelConfig
from acorn.kernels.choose import training_ops
from acorn.kernels.embedding import embedding
from acorn.model.gpt import GPT
from acorn.runtime.device import Runtime

CPU = Runtime("cpu", "fp32", False, 2, True)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (40, 65)])
def test_equals_torch_embedding(shape: tuple[int, ...]) -> None:
    """Over several backwards, with repeated tokens, with one and with several threads."""
    generator = torch.Generator().manual_seed(0)
    theirs = nn.Embedding(11, 40)
    ours, alone = (theirs.weight.detach().clone().requires_grad_() for _ in range(2))
    for _ in range(3):
        ids = torch.randint(9, shape, generator=generator)
        gradient = torch.randn(*shape, 40, generator=generator)
        theirs(ids).backward(gradient)
        embedding(ids, ours).backward(gradient)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        embedding(ids, alone).backward(gradient)
        torch.set_num_threads(threads)
        assert torch.equal(embedding(ids, ours), theirs(ids))
    assert torch.equal(ours.grad, alone.grad)
    torch.testing.assert_close(ours.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)
    assert (ours.grad[9:] == 0).all()


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_network_with_in_place_gradients(architecture: str, tied: bool) -> None:
    """Its gradients equal those of a network without; the table may be tied to the head."""
    shape = ModelConfig(
        architecture=architecture, tied=tied, vocab_size=50, n_layer=1, n_embd=16, n_head=2, block_size=8
    )
    model, other = (GPT(shape, training_ops(CPU, in_place_gradients=in_place)) for in_place in (True, False))
    ids = torch.randint(50, (3, 9), generator=torch.Generator().manual_seed(0))
    for network in (model, other):
        network.init_weights(0)
        for row in ids:
            network(row[None, :-1], row[None, 1:])[0].backward()
    for (name, one), (_, two) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-5, msg=name)
