"""Softmax and transposition in C, compared with PyTorch's in fp64; and the whole loss with both."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from acorn.kernels import cross_entropy
from acorn.kernels.block import CKernels
from acorn.kernels.build import Unavailable, c_library
from acorn.model import loss as reference
from acorn.model.loss import DEFAULT_PARTS, IGNORE, Workspace
from acorn.model.ops import CrossEntropy

pytestmark = pytest.mark.usefixtures("cpu")
WIDTHS = [1, 2, 15, 16, 17, 64, 65, 131, 1000]  # remainders only, full vectors only, both


GROUP = DEFAULT_PARTS.group


def c_kernels() -> CKernels:
    library = c_library("training")
    assert not isinstance(library, Unavailable)
    return CKernels(library, 2)


def softmax_gradient(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy.softmax_gradient(c_kernels(), logits, targets)


def loss_in_c(in_place: bool = True) -> CrossEntropy:
    return functools.partial(cross_entropy.cross_entropy, cross_entropy.parts_in_c(c_kernels(), None), in_place)


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
    loss = softmax_gradient(gradient, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), wanted.detach(), rtol=1e-6, atol=1e-5)
    counts = targets != IGNORE
    torch.testing.assert_close(gradient[counts].double(), exact.grad[counts], rtol=tolerance, atol=tolerance / 4)
    assert (gradient[~counts] == 0).all()


def test_small_probabilities_are_precise() -> None:
    """Down to the smallest fp32 value; smaller ones may be rounded."""
    logits = -torch.arange(0.0, 200.0)[None]
    gradient = logits.clone()
    softmax_gradient(gradient, torch.tensor([0]))
    exact = logits.double().softmax(-1)
    torch.testing.assert_close(gradient[:, 1:86].double(), exact[:, 1:86], rtol=1e-5, atol=0)
    assert (gradient[:, 87:] < 1e-37).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 40, 70])
def test_nan_and_infinity_propagate(value: float, place: int) -> None:
    """A run skips a step whose loss is NaN; a finite loss would hide the divergence."""
    logits, targets = some(3, 71)
    targets[:] = 1
    logits[1, place] = value
    assert softmax_gradient(logits, targets).isnan()


def test_a_target_past_the_vocabulary_is_refused() -> None:
    logits, _ = some(2, 10)
    with pytest.raises(IndexError, match="target 10 is out of range: there are 10 logits"):
        softmax_gradient(logits, torch.tensor([3, 10]))


@pytest.mark.parametrize("change", [torch.Tensor.double, torch.Tensor.half, lambda x: x.T.contiguous().T])
def test_unsupported_inputs_use_pytorch(change) -> None:
    logits, targets = some(5, 20)
    mine, plain = change(logits.clone()), change(logits.clone())
    assert softmax_gradient(mine, targets) == reference.softmax_gradient(plain, targets)
    assert torch.equal(mine, plain)


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (64, 64), (65, 127), (128, 192), (130, 5)])
def test_a_transposed_matrix(shape: tuple[int, int]) -> None:
    rows, columns = shape
    x = torch.randn(shape, generator=torch.Generator().manual_seed(columns)).bfloat16()
    total = torch.full((columns, rows), float("nan"))
    assert torch.equal(cross_entropy.transpose(c_kernels(), x), x.T)
    for is_first, wanted in ((1, x.T.float()), (0, 2 * x.T.float()), (1, x.T.float())):
        c_kernels().library.add_transposed(x.data_ptr(), rows, columns, total.data_ptr(), is_first, 2)
        assert torch.equal(total, wanted)


@pytest.mark.parametrize("n", [1, 300, GROUP, 2 * GROUP + 77])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_loss_of_a_model(n: int, precision: torch.dtype | None) -> None:
    """The error against fp64 is that of PyTorch's operations, plus 0.5 % for a different order of sums."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, 70, generator=generator).requires_grad_() for rows in (n, 131))
    targets = torch.randint(131, (n,), generator=generator)
    targets[1::3] = IGNORE
    exact = [value.detach().double().requires_grad_() for value in (x, weight)]
    wanted = F.cross_entropy(exact[0] @ exact[1].T, targets, ignore_index=IGNORE, reduction="sum")
    gradients = [gradient / 3 for gradient in torch.autograd.grad(wanted, exact)]
    errors = {}
    for name, of_logits in (("C", loss_in_c()), ("PyTorch", reference.cross_entropy)):
        x.grad = weight.grad = None
        with torch.autocast("cpu", precision, enabled=precision is not None):
            loss, count = of_logits(x, weight, targets, Workspace(), precision)
        (loss / 3).backward()
        assert count == (targets != IGNORE).sum()
        assert weight.grad.is_contiguous()
        assert (x.grad[targets == IGNORE] == 0).all()
        found = zip((loss.detach(), x.grad, weight.grad), (wanted.detach(), *gradients), strict=True)
        errors[name] = [float((mine.double() - theirs).norm() / theirs.norm()) for mine, theirs in found]
    slack = 1e-6 if precision is None else 0.005
    assert all(mine <= theirs + slack for mine, theirs in zip(errors["C"], errors["PyTorch"], strict=True)), errors


class LogitsWatch(TorchDispatchMode):
    """Keeps the logits of each group alive, so that no other tensor can reuse their memory."""

    def __init__(self, V: int) -> None:
        super().__init__()
        self.V, self.made = V, list[torch.Tensor]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.mm.out) and result.shape == (GROUP, self.V):
            self.made.append(result)
        return result


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("native", [False, True])
def test_all_groups_of_logits_use_the_same_memory(native: bool, precision: torch.dtype | None) -> None:
    loss, workspace = loss_in_c() if native else reference.cross_entropy, Workspace()
    x, weight = torch.randn(3 * GROUP, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    with LogitsWatch(7) as watch, torch.autocast("cpu", precision, enabled=precision is not None):
        for _ in range(2):
            loss(x, weight, torch.arange(len(x)) % 7, workspace, precision)
    assert len(watch.made) == 6
    assert len({logits.data_ptr() for logits in watch.made}) == 1


@pytest.mark.parametrize("native", [False, True])
def test_one_head_with_batches_of_several_sizes_and_precisions(native: bool) -> None:
    """The workspace grows with the logits and changes with their type; without tokens there is no gradient."""
    workspace = Workspace()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(7, 4, generator=generator).requires_grad_()
    for precision, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float32, 1e-5)):
        for n in (5, 0, GROUP + 3, 6):
            x = torch.randn(n, 4, generator=generator).requires_grad_()
            targets = torch.randint(7, (n,), generator=generator)
            loss = loss_in_c() if native else reference.cross_entropy
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                total, _ = loss(x, weight, targets, workspace, precision)
            weight.grad = None
            total.backward()
            found = x.grad, weight.grad
            wanted = torch.autograd.grad(F.cross_entropy(x @ weight.T, targets, reduction="sum"), (x, weight))
            for mine, theirs in zip(found, wanted, strict=True):
                assert (mine - theirs).norm() <= tolerance * theirs.norm()


def test_a_second_backward_is_refused() -> None:
    """It would scale the gradients twice."""
    x, weight = torch.randn(GROUP + 1, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    loss, _ = loss_in_c()(x, weight, torch.arange(len(x)) % 7, Workspace())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_accumulate_in_place() -> None:
    """Over forwards with one group and with several, each with its own factor; a second backward adds again."""
    generator = torch.Generator().manual_seed(0)
    loss, workspace = loss_in_c(), Workspace()
    weight = torch.randn(7, 4, generator=generator).requires_grad_()
    wanted, place = torch.zeros(7, 4), None
    for n, factor, times in ((5, 0.5, 1), (GROUP + 3, 0.01, 1), (6, 2.0, 2)):
        x, targets = torch.randn(n, 4, generator=generator), torch.randint(7, (n,), generator=generator)
        total, _ = loss(x, weight, targets, workspace)
        for _ in range(times):
            (factor * total).backward(retain_graph=times > 1)
        exact = F.cross_entropy(x @ weight.T, targets, reduction="sum")
        wanted += times * factor * torch.autograd.grad(exact, weight)[0]
        place = place or weight.grad.data_ptr()
        assert weight.grad.data_ptr() == place
        torch.testing.assert_close(weight.grad, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [5, GROUP + 1])
def test_another_forward_before_the_backward_is_refused(n: int) -> None:
    """It has overwritten the logits that the backward needs."""
    loss, workspace = loss_in_c(), Workspace()
    weight = torch.randn(7, 4, requires_grad=True)
    first, second = (loss(torch.randn(rows, 4), weight, torch.arange(rows) % 7, workspace)[0] for rows in (5, n))
    with pytest.raises(RuntimeError, match="another forward overwrote these logits"):
        first.backward()
    second.backward()
    assert weight.grad is not None


def test_a_frozen_head_gets_no_gradient() -> None:
    x, weight = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4)
    loss, _ = loss_in_c()(x, weight, torch.arange(5), Workspace())
    loss.backward()
    wanted = torch.autograd.grad(F.cross_entropy(x @ weight.T, torch.arange(5), reduction="sum"), x)[0]
    torch.testing.assert_close(x.grad, wanted, rtol=1e-5, atol=1e-6)
    assert weight.grad is None


@pytest.mark.parametrize("n", [5, GROUP + 1])
def test_autograd_gets_the_gradient_without_in_place_accumulation(n: int) -> None:
    x, weight = torch.randn(n, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    targets = torch.arange(n) % 7
    wanted = torch.autograd.grad(F.cross_entropy(x @ weight.T, targets, reduction="sum"), (x, weight))
    loss, _ = loss_in_c(in_place=False)(x, weight, targets, Workspace())
    for mine, theirs in zip(torch.autograd.grad(loss, (x, weight)), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert weight.grad is None
