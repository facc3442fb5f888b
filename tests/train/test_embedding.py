"""Embeddings that add up rows against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acorn.config import Config, ModelConfig
from acorn.runtime.device import Runtime
from acorn.train.embedding import AddingEmbedding, use_adding_embeddings
from acorn.train.network import build_network

CPU = Runtime("cpu", "fp32", False, 2, True)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (40, 65)])
def test_equals_torch_embedding(shape: tuple[int, ...]) -> None:
    """Over passes, with tokens that come often, and of threads that share the work as of one."""
    generator = torch.Generator().manual_seed(0)
    theirs = nn.Embedding(11, 40)
    ours = AddingEmbedding(nn.Embedding.from_pretrained(theirs.weight.detach().clone(), freeze=False))
    alone = AddingEmbedding(nn.Embedding.from_pretrained(theirs.weight.detach().clone(), freeze=False))
    for _ in range(3):
        ids = torch.randint(9, shape, generator=generator)
        gradient = torch.randn(*shape, 40, generator=generator)
        for one in (theirs, ours):
            one(ids).backward(gradient)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        alone(ids).backward(gradient)
        torch.set_num_threads(threads)
        assert torch.equal(ours(ids), theirs(ids))
    assert torch.equal(ours.weight.grad, alone.weight.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)
    assert (ours.weight.grad[9:] == 0).all()


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_network_with_them(architecture: str, tied: bool) -> None:
    """The gradients of one with PyTorch's, whose table may be the head's, too."""
    shape = ModelConfig(
        architecture=architecture, tied=tied, vocab_size=50, n_layer=1, n_embd=16, n_head=2, block_size=8
    )
    model, _ = build_network(Config(model=shape), CPU)
    other, _ = build_network(Config(model=shape), CPU)
    with_them = sorted(name for name, module in model.named_modules() if isinstance(module, AddingEmbedding))
    assert with_them == ["position_embedding", "token_embedding"][architecture == "modern" :]
    for name in with_them:
        setattr(other, name, nn.Embedding.from_pretrained(getattr(other, name).weight.detach(), freeze=False))
    if tied:
        other.token_embedding.weight = other.head.weight
    assert list(model.state_dict()) == list(other.state_dict())
    ids = torch.randint(50, (3, 9), generator=torch.Generator().manual_seed(0))
    for network in (model, other):
        network.init_weights(0)
        for row in ids:
            network(row[None, :-1], row[None, 1:])[0].backward()
    for (name, one), (_, two) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_on_a_gpu_they_stay_pytorchs() -> None:
    model = nn.Module()
    model.token_embedding = nn.Embedding(3, 2)
    use_adding_embeddings(model, Runtime("cuda", "bf16", False, 2, True))
    assert type(model.token_embedding) is nn.Embedding
