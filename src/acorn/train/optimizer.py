"""AdamW, and Muon for matrices: which parameter goes where, and the one update each step makes.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, found with a few
Newton-Schulz iterations that need nothing but matrix products. Equal shapes are stacked, so that a model of many
small matrices does a few large products. AdamW is PyTorch's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from acorn.config import OptimizerConfig
from acorn.model.gpt import GPT
from acorn.runtime.cuda_graph import Recorded
from acorn.runtime.fp16_product import Fp16Product

NEWTON_SCHULZ_STEPS = 5
# Coefficients of the quintic x -> ax + bx^3 + cx^5, tuned by Jordan et al. for a steep slope at zero: five rounds bring
# every singular value into about [0.7, 1.2], which serves as well as exactly 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised. For matrices only.

    Args:
        params: matrices (rows, columns).
        lr: learning rate; the update is scaled by sqrt(max(1, rows / columns)), so that one rate fits every shape.
        momentum: Nesterov momentum.
        weight_decay: decoupled, per unit of learning rate.
        dtype: of the iterations; bf16 suffices for a step's direction, fp32 is for runs that ask for fp32.
        product: multiplies fp32 matrices; None: PyTorch does.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype,
        product: Fp16Product | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype, self._product = dtype, product
        self._recorded: dict[torch.Size, Recorded] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon takes matrices, not a parameter of shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group["lr"], group["momentum"], group["weight_decay"])

    def _update(self, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        buffers = [self._momentum(parameter) for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        directions = torch._foreach_lerp(gradients, buffers, momentum)  # Nesterov: look one step ahead
        updates = self._orthogonal(torch.stack(list(directions)).to(self.dtype)).to(parameters[0].dtype)
        rows, columns = parameters[0].shape
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        torch._foreach_add_(parameters, list(updates.unbind()), alpha=-lr * max(1.0, rows / columns) ** 0.5)

    def _orthogonal(self, matrices: Tensor) -> Tensor:
        """`orthogonalize`, on a GPU recorded for each shape: it is many products of which each takes little time."""
        if not matrices.is_cuda:
            return orthogonalize(matrices, self._product)
        if matrices.shape not in self._recorded:
            self._recorded[matrices.shape] = Recorded(orthogonalize, matrices)
        return self._recorded[matrices.shape](matrices)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum


def orthogonalize(matrices: Tensor, product: Fp16Product | None = None) -> Tensor:
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
    model: GPT, config: OptimizerConfig, *, muon_dtype: torch.dtype, product: Fp16Product | None = None
) -> list[torch.optim.Optimizer]:
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
    adamw = torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if muon:
        group = _group(blocks, config.peak_lr, config.weight_decay)
        more = config.momentum, config.weight_decay, muon_dtype, product
        optimizers.append(Muon([group], config.peak_lr, *more))  # type: ignore[list-item]
    _each_parameter_once(model, optimizers)
    return optimizers


def set_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Sets every group's learning rate to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def _named(parameters: dict[str, nn.Parameter], *modules: str) -> dict[str, nn.Parameter]:
    return {name: value for name, value in parameters.items() if name.split(".")[0] in modules}


def _group(named: dict[str, nn.Parameter], rate: float, decay: float) -> dict[str, Any]:
    return {"params": list(named.values()), "lr": rate, "peak_lr": rate, "weight_decay": decay}


def _each_parameter_once(model: GPT, optimizers: list[torch.optim.Optimizer]) -> None:
    grouped = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    missing = [name for key, name in names.items() if key not in grouped]
    assert not missing, f"no optimizer group has {missing}"
    assert len(grouped) == len(set(grouped)), "a parameter is in two optimizer groups"
