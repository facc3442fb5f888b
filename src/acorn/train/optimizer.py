"""AdamW, and Muon for the blocks' matrices: their parameter groups and updates.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, found with a few
Newton-Schulz iterations that consist of matmuls. Matrices of equal shape are stacked, so that many small matrices need
only a few large matmuls. AdamW's update is PyTorch's.
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
# Coefficients of the quintic x -> ax + bx^3 + cx^5, tuned by Jordan et al. for a steep slope at zero: five iterations
# bring every singular value into about [0.7, 1.2], which works as well as exactly 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Optimizer(ABC):
    """Groups of parameters, each with a learning rate and a weight decay, and the state of each parameter.

    Not a torch.optim.Optimizer: that loads torch.compile, which costs time and memory even if nothing is compiled
    (docs/lab-notebook.md).

    Args:
        groups: each a dict with `params`, `lr` and `weight_decay`; other keys are allowed.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    @abstractmethod
    def step(self) -> None:
        """One update of every parameter that has a gradient."""

    def zero_grad(self, *, keep: bool = False) -> None:
        """Removes the gradients.

        Args:
            keep: instead sets them to zero in place, and allocates missing ones: for a step of several micro-batches,
                which needs them from the second one on anyway. Keeping their memory avoids fragmentation.
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
    """AdamW (Loshchilov and Hutter 2019), one fused operation per group.

    Args:
        groups: dicts with `params`, `lr` and `weight_decay`.
        betas: decay rates of the averages of gradients and of their squares.
        eps: added to the square root of the average of squares.
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
    """Momentum, orthogonalized. For matrices only.

    Args:
        groups: dicts with `params`, `lr` and `weight_decay`, of matrices (rows, columns). The update is scaled by
            sqrt(max(1, rows / columns)), so that one learning rate fits every shape; the weight decay is multiplied
            with the learning rate.
        momentum: Nesterov momentum.
        dtype: type of the iterations; bf16 is precise enough for the direction of a step, fp32 is for fp32 runs.
        matmul: the matmul of fp32 matrices; None: PyTorch's.
    """

    def __init__(
        self, groups: list[dict[str, Any]], momentum: float, dtype: torch.dtype, matmul: Fp16Matmul | None = None
    ) -> None:
        super().__init__(groups)
        self.momentum, self.dtype, self._matmul = momentum, dtype, matmul
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
        """`orthogonalize`; on a GPU captured as a CUDA graph for each shape, because it is many short matmuls."""
        if not matrices.is_cuda:
            return orthogonalize(matrices, self._matmul)
        if matrices.shape not in self._captured:
            self._captured[matrices.shape] = CapturedFunction(orthogonalize, matrices)
        return self._captured[matrices.shape](matrices)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum


def orthogonalize(matrices: Tensor, matmul: Fp16Matmul | None = None) -> Tensor:
    """An approximation of the nearest orthogonal matrix to each of a stack (n, rows, columns): singular values near 1.

    Args:
        matmul: the matmul of fp32 matrices; None: PyTorch's.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        if matmul is None:
            gram = torch.bmm(x, x.mT)
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            x = torch.baddbmm(x, polynomial, x, beta=a)
        else:
            gram = matmul(x, x.mT)
            polynomial = matmul(gram, gram * c, gram * b, add=True)
            x = matmul(polynomial, x, (x * a).contiguous(), add=True)  # x of a tall matrix is transposed at first
    return x.mT if tall else x


def build_optimizers(
    model: GPT, config: OptimizerConfig, *, muon_dtype: torch.dtype, matmul: Fp16Matmul | None = None
) -> list[Optimizer]:
    """The optimizers for a config. Every parameter that is trained (`requires_grad`) is in exactly one group, no other
    in any; `peak_lr` of a group is its peak rate.

    Weight decay applies to matrices and embeddings, not to norms and biases. A label head is updated by AdamW, as a
    language model's head is. So are LoRA's factors, with Muon at the rate of norms and biases: Muon makes
    the singular values of an update equal, and a factor is only a part of one.

    Args:
        muon_dtype: type of Muon's iterations.
        matmul: the matmul of fp32 matrices for Muon; None: PyTorch's.
    """
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    factors = {name: value for name, value in parameters.items() if name.endswith((".lora_a", ".lora_b"))}
    matrices = {name: value for name, value in parameters.items() if value.ndim == 2 and name not in factors}
    embeddings = _named(matrices, "token_embedding", "position_embedding")
    head = _named(matrices, "head", "score")
    blocks = _named(matrices, "blocks")
    vectors = {name: value for name, value in parameters.items() if value.ndim < 2}
    muon = config.name == "muon"
    rates = [
        (embeddings, config.embedding_lr if muon else config.peak_lr, config.weight_decay),
        (head, config.head_lr if muon else config.peak_lr, config.weight_decay),
        (vectors, config.vector_lr if muon else config.peak_lr, 0.0),
        (factors, config.vector_lr if muon else config.peak_lr, config.weight_decay),
    ]
    if not muon:
        rates.append((blocks, config.peak_lr, config.weight_decay))
    groups = [_group(named, rate, decay) for named, rate, decay in rates if named]
    optimizers: list[Optimizer] = [AdamW(groups, (config.beta1, config.beta2), config.eps)]
    if muon and blocks:
        group = _group(blocks, config.peak_lr, config.weight_decay)
        optimizers.append(Muon([group], config.momentum, muon_dtype, matmul))
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
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing = [name for key, name in names.items() if key not in grouped]
    assert not missing, f"no optimizer group contains {missing}"
    assert len(grouped) == len(set(grouped)), "a parameter is in two optimizer groups"
    assert names.keys() >= set(grouped), "an optimizer group contains a frozen parameter"
