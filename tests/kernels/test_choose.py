"""Which operations a network is built with, and that it uses them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cpus import needs_fp16

from acorn.kernels import attention, attention_fp16, block, cpu, cross_entropy, embedding, linear
from acorn.kernels.build import Unavailable, c_library
from acorn.kernels.choose import inference_ops, training_ops
from acorn.kernels.cpu import is_fused, parts_in_c
from acorn.kernels.dropout import dropout
from acorn.model import loss, ops
from acorn.model.ops import PYTORCH_OPS, Ops
from acorn.runtime.device import Runtime

needs_compiler = pytest.mark.skipif(
    isinstance(c_library("training"), Unavailable), reason="needs a C compiler with OpenMP"
)
CPU = Runtime("cpu", "fp32", False, 2, True)


def function_of(operation: Callable[..., Any]) -> Callable[..., Any]:
    return operation.func if isinstance(operation, functools.partial) else operation


def used(ops: Ops) -> dict[str, Callable[..., Any]]:
    return {name: function_of(getattr(ops, name)) for name in Ops.__dataclass_fields__ if name != "matmul_dtype"}


REFERENCE = used(PYTORCH_OPS)
IN_C = {
    "rmsnorm": block.rmsnorm,
    "qk_norm_rope": block.qk_norm_rope,
    "swiglu": block.swiglu,
    "gelu": block.gelu,
}
ON_A_CPU = {"attention": attention.attention, "dropout": dropout, "cross_entropy": cross_entropy.cross_entropy}


@needs_compiler
def test_a_cpu() -> None:
    found = training_ops(CPU, in_place_gradients=True)
    assert used(found) == REFERENCE | ON_A_CPU | IN_C | {"embedding": embedding.embedding}
    assert function_of(found.attention.args[0]) is block.attention_weights
    assert found.matmul_dtype is None
    assert training_ops(Runtime("cpu", "bf16", False, 2, True), in_place_gradients=True).matmul_dtype == torch.bfloat16
    assert used(training_ops(CPU, in_place_gradients=False)) == used(found) | {"embedding": ops.embedding}


@needs_compiler
def test_a_compiled_network_on_a_cpu_has_the_loss_in_c() -> None:
    found = training_ops(Runtime("cpu", "fp32", True, 2, True), in_place_gradients=True)
    assert used(found) == REFERENCE | ON_A_CPU | {"embedding": embedding.embedding}
    parts = found.cross_entropy.args[0]
    assert function_of(parts.softmax_gradient) is cross_entropy.softmax_gradient


def test_a_cpu_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "c_library", lambda name: Unavailable("no C compiler was found"))
    found = training_ops(CPU, in_place_gradients=True)
    assert used(found) == REFERENCE | ON_A_CPU | {"embedding": embedding.embedding}
    assert found.attention.args[0] is attention.attention_weights
    parts, in_place = found.cross_entropy.args
    assert parts == loss.Parts(add_weight_gradient=cross_entropy.add_weight_gradient)
    assert not in_place
    assert parts_in_c(CPU) == []
    assert not is_fused(CPU)


@needs_fp16
def test_a_cpu_with_fp16_instructions() -> None:
    found = training_ops(Runtime("cpu", "fp16", False, 2, True, fp16_matmuls=True), in_place_gradients=True)
    in_fp16 = {"linear": linear.linear, "attention": attention_fp16.attention}
    assert used(found) == REFERENCE | ON_A_CPU | IN_C | in_fp16 | {"embedding": embedding.embedding}
    assert found.matmul_dtype is None
    rounded = found.cross_entropy.args[0].matmul(torch.ones(1, 2), torch.full((2, 1), 1 + 2**-12))
    assert rounded == 2


@pytest.mark.parametrize(("device", "sizes"), [("cuda", (8192, 2048, 2048)), ("mps", (2048, 256, 256))])
def test_a_gpu_uses_pytorchs_operations_and_its_own_loss(device: str, sizes: tuple[int, int, int]) -> None:
    for in_place in (False, True):
        found = training_ops(Runtime(device, "bf16", False, 2, True), in_place_gradients=in_place)
        assert used(found) == REFERENCE
        parts = found.cross_entropy.keywords["parts"]
        assert (parts.group, parts.chunk, parts.gradient_chunk) == sizes
        assert parts.memory is loss.fresh_memory
        assert found.matmul_dtype == torch.bfloat16


def test_inference_uses_pytorchs_operations() -> None:
    assert inference_ops("cpu") is inference_ops("mps") is PYTORCH_OPS
    assert used(inference_ops("cuda")) == REFERENCE
    assert inference_ops("cuda").cross_entropy.keywords["parts"].chunk == 2048


@needs_compiler
def test_names_in_environment_json() -> None:
    assert parts_in_c(CPU) == ["loss", "blocks"]
    assert parts_in_c(Runtime("cpu", "fp16", False, 2, True, fp16_matmuls=True)) == [
        *("loss", "blocks"),
        *("matmuls", "attention"),
    ]
    assert parts_in_c(Runtime("cuda", "bf16", False, 2, True)) == []
