"""The softmax in C against PyTorch's in fp64, matrices turned round, and a whole loss with both."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from acorn.config import Config, ModelConfig
from acorn.model.gpt import GPT
from acorn.model.loss import GROUP, IGNORE, LinearCrossEntropy, SoftmaxGradient
from acorn.runtime.device import Runtime
from acorn.train import environment
from acorn.train.native_loss import NativeCrossEntropy, NativeSoftmaxGradient, native_loss_library, use_native_loss
from acorn.train.network import build_network

pytestmark = pytest.mark.usefixtures("cpu")
WIDTHS = [1, 2, 15, 16, 17, 64, 65, 131, 1000]  # rests only, vectors only, both


def library() -> Any:
    return native_loss_library("cpu")


def native() -> NativeSoftmaxGradient:
    return NativeSoftmaxGradient(library(), threads=2)


def some(n: int, V: int, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(V)
    logits = spread * torch.randn(n, V, generator=generator)
    targets = torch.randint(V, (n,), generator=generator)
    targets[::4] = IGNORE
    return logits, targets


@pytest.mark.parametrize("V", WIDTHS)
@pytest.mark.parametrize("spread", [0.0, 3.0, 1000.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_loss_and_gradient(V: int, spread: float, dtype: torch.dtype, tolerance: float) -> None:
    logits, targets = some(9, V, spread)
    logits = logits.to(dtype)
    exact = logits.double().requires_grad_()
    wanted = F.cross_entropy(exact, targets, ignore_index=IGNORE, reduction="sum")
    wanted.backward()
    gradient = logits.clone()
    loss = native()(gradient, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), wanted.detach(), rtol=1e-6, atol=1e-5)
    counts = targets != IGNORE
    torch.testing.assert_close(gradient[counts].double(), exact.grad[counts], rtol=tolerance, atol=tolerance / 4)
    assert (gradient[~counts] == 0).all()


def test_small_probabilities_keep_their_digits() -> None:
    """Down to where fp32 ends; past it they stay too small to matter."""
    logits = -torch.arange(0.0, 200.0)[None]
    gradient = logits.clone()
    native()(gradient, torch.tensor([0]))
    exact = logits.double().softmax(-1)
    torch.testing.assert_close(gradient[:, 1:86].double(), exact[:, 1:86], rtol=1e-5, atol=0)
    assert (gradient[:, 87:] < 1e-37).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 40, 70])
def test_numbers_that_are_none_are_not_hidden(value: float, place: int) -> None:
    """A run stops at a loss that is NaN; a loss that looks healthy would let it go on."""
    logits, targets = some(3, 71)
    targets[:] = 1
    logits[1, place] = value
    assert native()(logits, targets).isnan()


def test_a_target_past_the_vocabulary_is_refused() -> None:
    logits, _ = some(2, 10)
    with pytest.raises(IndexError, match="target 10 is out of range: there are 10 logits"):
        native()(logits, torch.tensor([3, 10]))


@pytest.mark.parametrize("change", [torch.Tensor.double, torch.Tensor.half, lambda x: x.T.contiguous().T])
def test_what_it_does_not_know_pytorch_does(change) -> None:
    logits, targets = some(5, 20)
    mine, plain = change(logits.clone()), change(logits.clone())
    assert native()(mine, targets) == SoftmaxGradient()(plain, targets)
    assert torch.equal(mine, plain)


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (64, 64), (65, 127), (128, 192), (130, 5)])
def test_a_matrix_turned_round(shape: tuple[int, int]) -> None:
    rows, columns = shape
    x = torch.randn(shape, generator=torch.Generator().manual_seed(columns)).bfloat16()
    turned, total = x.new_empty(columns, rows), torch.full((columns, rows), float("nan"))
    library().turn(x.data_ptr(), rows, columns, turned.data_ptr(), 2)
    assert torch.equal(turned, x.T)
    for is_first, wanted in ((1, x.T.float()), (0, 2 * x.T.float()), (1, x.T.float())):
        library().add_turned(x.data_ptr(), rows, columns, total.data_ptr(), is_first, 2)
        assert torch.equal(total, wanted)


@pytest.mark.parametrize("n", [1, 300, GROUP["cpu"], 2 * GROUP["cpu"] + 77])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_the_models_loss_with_it(n: int, precision: torch.dtype | None) -> None:
    """Against fp64: as near to it as PyTorch's operations come, with half a percent for another order of sums."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, 70, generator=generator).requires_grad_() for rows in (n, 131))
    targets = torch.randint(131, (n,), generator=generator)
    targets[1::3] = IGNORE
    exact = [value.detach().double().requires_grad_() for value in (x, weight)]
    wanted = F.cross_entropy(exact[0] @ exact[1].T, targets, ignore_index=IGNORE, reduction="sum")
    gradients = [gradient / 3 for gradient in torch.autograd.grad(wanted, exact)]
    errors = {}
    for name, cross_entropy in (
        ("C", NativeCrossEntropy(library(), threads=2)),
        ("PyTorch", LinearCrossEntropy()),
    ):
        x.grad = weight.grad = None
        with torch.autocast("cpu", precision, enabled=precision is not None):
            loss, count = cross_entropy(x, weight, targets)
        (loss / 3).backward()
        assert count == (targets != IGNORE).sum()
        assert weight.grad.is_contiguous()
        assert (x.grad[targets == IGNORE] == 0).all()
        found = zip((loss.detach(), x.grad, weight.grad), (wanted.detach(), *gradients), strict=True)
        errors[name] = [float((mine.double() - theirs).norm() / theirs.norm()) for mine, theirs in found]
    slack = 1e-6 if precision is None else 0.005
    assert all(mine <= theirs + slack for mine, theirs in zip(errors["C"], errors["PyTorch"], strict=True)), errors


class LogitsWatch(TorchDispatchMode):
    """Keeps the logits of each group, so that no other tensor can take their place."""

    def __init__(self, V: int) -> None:
        super().__init__()
        self.V, self.made = V, list[torch.Tensor]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.mm.out) and result.shape == (GROUP["cpu"], self.V):
            self.made.append(result)
        return result


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("in_c", [False, True])
def test_all_groups_of_logits_are_written_to_one_place(in_c: bool, precision: torch.dtype | None) -> None:
    loss = NativeCrossEntropy(library(), threads=2) if in_c else LinearCrossEntropy()
    x, weight = torch.randn(3 * GROUP["cpu"], 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    with LogitsWatch(7) as watch, torch.autocast("cpu", precision, enabled=precision is not None):
        for _ in range(2):
            loss(x, weight, torch.arange(len(x)) % 7)
    assert len(watch.made) == 6
    assert len({logits.data_ptr() for logits in watch.made}) == 1


@pytest.mark.parametrize("in_c", [False, True])
def test_one_loss_for_batches_of_any_size_and_precision(in_c: bool) -> None:
    """The place of the logits grows with them, and changes with their type; no tokens give no gradient."""
    loss = NativeCrossEntropy(library(), threads=2) if in_c else LinearCrossEntropy()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(7, 4, generator=generator).requires_grad_()
    for precision, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float32, 1e-5)):
        for n in (5, 0, GROUP["cpu"] + 3, 6):
            x = torch.randn(n, 4, generator=generator).requires_grad_()
            targets = torch.randint(7, (n,), generator=generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                total, _ = loss(x, weight, targets)
            weight.grad = None
            total.backward()
            found = x.grad, weight.grad
            wanted = torch.autograd.grad(F.cross_entropy(x @ weight.T, targets, reduction="sum"), (x, weight))
            for mine, theirs in zip(found, wanted, strict=True):
                assert (mine - theirs).norm() <= tolerance * theirs.norm()


def test_a_second_backward_pass_is_refused() -> None:
    """It would scale the gradients that the first one scaled."""
    x, weight = torch.randn(GROUP["cpu"] + 1, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    loss, _ = NativeCrossEntropy(library(), threads=2)(x, weight, torch.arange(len(x)) % 7)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_add_up_in_one_place() -> None:
    """Of passes in one group and in several, each times a factor of its own; a second backward pass adds once more."""
    generator = torch.Generator().manual_seed(0)
    loss = NativeCrossEntropy(library(), threads=2)
    weight = torch.randn(7, 4, generator=generator).requires_grad_()
    wanted, place = torch.zeros(7, 4), None
    for n, factor, times in ((5, 0.5, 1), (GROUP["cpu"] + 3, 0.01, 1), (6, 2.0, 2)):
        x, targets = torch.randn(n, 4, generator=generator), torch.randint(7, (n,), generator=generator)
        total, _ = loss(x, weight, targets)
        for _ in range(times):
            (factor * total).backward(retain_graph=times > 1)
        exact = F.cross_entropy(x @ weight.T, targets, reduction="sum")
        wanted += times * factor * torch.autograd.grad(exact, weight)[0]
        place = place or weight.grad.data_ptr()
        assert weight.grad.data_ptr() == place
        torch.testing.assert_close(weight.grad, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [5, GROUP["cpu"] + 1])
def test_a_forward_pass_in_between_is_refused(n: int) -> None:
    """It wrote its logits over those that the backward pass needs."""
    loss = NativeCrossEntropy(library(), threads=2)
    weight = torch.randn(7, 4, requires_grad=True)
    first, second = (loss(torch.randn(rows, 4), weight, torch.arange(rows) % 7)[0] for rows in (5, n))
    with pytest.raises(RuntimeError, match="another forward pass took the logits' place"):
        first.backward()
    second.backward()
    assert weight.grad is not None


def test_a_frozen_head_gets_no_gradient() -> None:
    x, weight = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4)
    loss, _ = NativeCrossEntropy(library(), threads=2)(x, weight, torch.arange(5))
    loss.backward()
    wanted = torch.autograd.grad(F.cross_entropy(x @ weight.T, torch.arange(5), reduction="sum"), x)[0]
    torch.testing.assert_close(x.grad, wanted, rtol=1e-5, atol=1e-6)
    assert weight.grad is None


def test_a_network_for_the_cpu_has_it_and_another_has_not() -> None:
    config = Config(model=ModelConfig(vocab_size=50, n_layer=1, n_embd=16, n_head=2, block_size=8))
    model, _ = build_network(config, Runtime("cpu", "fp32", False, 2, True))
    assert isinstance(model.head.cross_entropy, NativeCrossEntropy)
    other = GPT(config.model)
    use_native_loss(other, Runtime("cuda", "bf16", True, 2, True))
    assert type(other.head.cross_entropy) is LinearCrossEntropy


def test_a_resumed_run_says_when_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime("cpu", "fp32", False, 2, True)
    then = environment.describe_environment(runtime, "")
    monkeypatch.setattr(environment, "native_loss_library", lambda device: "no C compiler was found")
    now = environment.describe_environment(runtime, "")
    assert environment.changed_since(then, now) == ["native: loss, blocks then, blocks now"]
