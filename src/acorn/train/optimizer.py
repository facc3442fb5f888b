"""AdamW, and Muon for matrices: which parameter goes where, and the one update each step makes.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, found with a few
Newton-Schulz iterations that need nothing but matrix products. Equal shapes are stacked, so that a model of many
small matrices does a few large products. AdamW's arithmetic is PyTorch's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from acorn.config import OptimizerConfig
from acorn.kernels.matmul import Fp16Matmul
from acorn.model.gpt import GPT
from acorn.runtime.cuda_graph import CapturedFunction

NEWTON_SCHULZ_STEPS = 5
# Coefficients of the quintic x -> ax + bx^3 + cx^5, tuned by Jordan et al. for a steep slope at zero: five rounds bring
# every singular value into about [0.7, 1.2], which serves as well as exactly 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Optimizer(ABC):
    """Groups of parameters, each with a learning rate and a weight decay, and what is remembered of each parameter.

    Not a torch.optim.Optimizer: PyTorch's loads its compiler, which costs a run that compiles nothing a second and
    70 MiB (seen with 2.13).

    Args:
        groups: each a dict of `params`, `lr` and `weight_decay`, and whatever else is of use.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    @abstractmethod
    def step(self) -> None:
        """One update of every parameter that has a gradient."""

    def zero_grad(self, *, keep: bool = False) -> None:
        """Lets the gradients go.

        Args:
            keep: they become zeros where they are, and are made where there are none: for a step of several passes, of
                which all but the first would have them anyhow. In their places nothing else can settle meanwhile.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                if not keep:
                    parameter.grad = None
                elif parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                else:
                    parameter.grad.zero_()


class AdamW(Optimizer):
    """Loshchilov and Hutter 2019, in one operation for each group.

    Args:
        groups: as Optimizer.
        betas: of the averages of gradients and of their squares.
        eps: added to the root of the latter.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups)
        self.betas, self.eps = betas, eps

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self._state(parameter) for parameter in parameters]
            adamw(
                parameters,
                [parameter.grad for parameter in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=self.eps,
                maximize=False,
            )

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


class Muon(Optimizer):
    """Momentum, orthogonalised. For matrices only.

    Args:
        groups: as Optimizer, of matrices (rows, columns); the update is scaled by sqrt(max(1, rows / columns)), so that
            one rate fits every shape, and the weight decay is per unit of learning rate.
        momentum: Nesterov momentum.
        dtype: of the iterations; bf16 suffices for a step's direction, fp32 is for runs that ask for fp32.
        product: multiplies fp32 matrices; None: PyTorch does.
    """

    def __init__(
        self, groups: list[dict[str, Any]], momentum: float, dtype: torch.dtype, product: Fp16Matmul | None = None
    ) -> None:
        super().__init__(groups)
        self.momentum, self.dtype, self._product = momentum, dtype, product
        self._captured: dict[torch.Size, CapturedFunction] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon takes matrices, not a parameter of shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group["lr"], group["weight_decay"])

    def _update(self, parameters: list[Tensor], lr: float, weight_decay: float) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        buffers = [self._momentum(parameter) for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - self.momentum)
        directions = torch._foreach_lerp(gradients, buffers, self.momentum)  # Nesterov: look one step ahead
        updates = self._orthogonal(torch.stack(list(directions)).to(self.dtype)).to(parameters[0].dtype)
        rows, columns = parameters[0].shape
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        torch._foreach_add_(parameters, list(updates.unbind()), alpha=-lr * max(1.0, rows / columns) ** 0.5)

    def _orthogonal(self, matrices: Tensor) -> Tensor:
        """`orthogonalize`, on a GPU recorded for each shape: it is many products of which each takes little time."""
        if not matrices.is_cuda:
            return orthogonalize(matrices, self._product)
        if matrices.shape not in self._captured:
            self._captured[matrices.shape] = CapturedFunction(orthogonalize, matrices)
        return self._captured[matrices.shape](matrices)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum


def orthogonalize(matrices: Tensor, product: Fp16Matmul | None = None) -> Tensor:
    """The orthogonal matrix nearest to each of a stack (n, rows, columns), roughly: singular values near 1.

    Args:
        product: multiplies fp32 matrices; None: PyTorch does.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        if product is None:
            gram = torch.bmm(x, x.mT)
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            x = torch.baddbmm(x, polynomial, x, beta=a)
        else:
            gram = product(x, x.mT)
            polynomial = product(gram, gram * c, gram * b, add=True)
            x = product(polynomial, x, (x * a).contiguous(), add=True)  # at first, the x of a tall one is turned
    return x.mT if tall else x


def build_optimizers(
    model: GPT, config: OptimizerConfig, *, muon_dtype: torch.dtype, product: Fp16Matmul | None = None
) -> list[Optimizer]:
    """The optimizers of a recipe. Every parameter is in exactly one group; each group has its peak rate as `peak_lr`.

    Weight decay falls on matrices and embeddings, never on norms and biases.

    Args:
        muon_dtype, product: as Muon's `dtype` and `product`.
    """
    parameters = dict(model.named_parameters())
    embeddings = _named(parameters, "token_embedding", "position_embedding")
    head = _named(parameters, "head")
    blocks = {name: value for name, value in parameters.items() if value.ndim == 2 and name.startswith("blocks.")}
    vectors = {name: value for name, value in parameters.items() if value.ndim < 2}
    muon = config.name == "muon"
    rates = [
        (embeddings, config.embedding_lr if muon else config.peak_lr, config.weight_decay),
        (head, config.head_lr if muon else config.peak_lr, config.weight_decay),
        (vectors, config.vector_lr if muon else config.peak_lr, 0.0),
    ]
    if not muon:
        rates.append((blocks, config.peak_lr, config.weight_decay))
    groups = [_group(named, rate, decay) for named, rate, decay in rates if named]
    optimizers: list[Optimizer] = [AdamW(groups, (config.beta1, config.beta2), config.eps)]
    if muon:
        group = _group(blocks, config.peak_lr, config.weight_decay)
        optimizers.append(Muon([group], config.momentum, muon_dtype, product))
    _check_each_parameter_once(model, optimizers)
    return optimizers


def set_rates(optimizers: list[Optimizer], factor: float) -> None:
    """Sets every group's learning rate to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def _named(parameters: dict[str, nn.Parameter], *modules: str) -> dict[str, nn.Parameter]:
    return {name: value for name, value in parameters.items() if name.split(".")[0] in modules}


def _group(named: dict[str, nn.Parameter], rate: float, decay: float) -> dict[str, Any]:
    return {"params": list(named.values()), "lr": rate, "peak_lr": rate, "weight_decay": decay}


def _check_each_parameter_once(model: GPT, optimizers: list[Optimizer]) -> None:
    grouped = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    missing = [name for key, name in names.items() if key not in grouped]
    assert not missing, f"no optimizer group has {missing}"
    assert len(grouped) == len(set(grouped)), "a parameter is in two optimizer groups"
