"""LoRA, compared with the dense network whose weights are W + alpha / r B A, and with its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from acorn.config import Config, ModelConfig
from acorn.kernels.build import Unavailable
from acorn.kernels.decode import native_decoder
from acorn.model import ops
from acorn.model.gpt import GPT
from acorn.model.int8 import quantize_rows, round_to_int8
from acorn.model.kv_cache import KVCache
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraLinear, LoraSpec, merged
from acorn.model.loss import IGNORE
from acorn.runtime.device import Runtime
from acorn.train.network import build_network

V, MARKUP = 131, (7, 3, 130)
SIZES: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 24, "vocab_size": V}
SHAPES = {
    "original": ModelConfig(architecture="original", **SIZES),
    "gpt2": ModelConfig(architecture="gpt2", **SIZES),
    "gpt2-untied": ModelConfig(architecture="gpt2", tied=False, **SIZES),
    "modern": ModelConfig(n_kv_head=2, **SIZES),
    "modern-untied": ModelConfig(tied=False, **SIZES),
    "llama": ModelConfig(qk_norm=False, **SIZES),
}
SPECS = {
    "all": LoraSpec(4, 8.0),
    "some": LoraSpec(1, 3.0, targets=("q_proj", "down_proj")),
    "markup": LoraSpec(3, 2.0, markup_ids=MARKUP),
}
ALL_LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
ON_THE_CPU = Runtime("cpu", "fp32", False, 2, True)


def randomize(model: GPT) -> GPT:
    """No parameter keeps a value that would hide a mistake, such as a factor of zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1))
    return model


def closed_form(model: GPT, spec: LoraSpec) -> dict[str, Tensor]:
    """The dense weights, from the definition: W + alpha / r B A, and rows of markup that are changed."""
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}
    dense = {name: value.clone() for name, value in values.items() if not name.endswith(("_a", "_b", "_rows"))}
    for name, a in values.items():
        if name.endswith(".lora_a"):
            layer = name.removesuffix(".lora_a")
            dense[f"{layer}.weight"] += spec.alpha / spec.rank * values[f"{layer}.lora_b"] @ a
        if name.endswith(".markup_rows"):
            table = dense[f"{name.removesuffix('.markup_rows')}.weight"]
            for token, row in zip(spec.markup_ids, a, strict=True):
                table[token] += row
    return dense


def dense_twin(model: GPT, weights: dict[str, Tensor]) -> GPT:
    twin = GPT(model.config, head=model.head_spec)
    names = dict(twin.named_parameters())
    assert names.keys() == weights.keys()
    with torch.no_grad():
        for name, parameter in names.items():
            parameter.copy_(weights[name])
    return twin


def some_ids(rows: int = 3, length: int = 24) -> Tensor:
    """Token ids, among them those of markup."""
    ids = torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(2))
    ids[:, ::5] = torch.tensor(MARKUP)[torch.arange(ids[:, ::5].numel()).reshape(rows, -1) % 3]
    return ids


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_merged_weights_are_those_of_the_closed_form(shape: str, spec: str) -> None:
    model = randomize(GPT(SHAPES[shape], lora=SPECS[spec])).eval()
    expected, found = closed_form(model, SPECS[spec]), merged(model)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-6)
    ids = some_ids()
    with torch.no_grad():
        logits, of_dense = model(ids), dense_twin(model, expected)(ids)
        torch.testing.assert_close(logits, of_dense, rtol=0, atol=1e-4)
    layers = {name.split(".")[-2] for name in model.new_parameters() if name.endswith("lora_a")}
    everything = ALL_LAYERS | ({"gate_proj"} if SHAPES[shape].architecture == "modern" else set())
    assert layers == (set(SPECS[spec].targets) or everything)


@pytest.mark.parametrize("in_c", [True, False], ids=["kernels", "PyTorch"])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_follow_from_those_of_the_dense_network(shape: str, spec: str, in_c: bool) -> None:
    """With D the gradient of a dense matrix: alpha / r D A^T for B, alpha / r B^T D for A; of changed rows, D's rows.

    The chain rule, applied to the gradients of a network without LoRA. What is frozen has no gradient.
    """
    lora = SPECS[spec]
    if in_c:
        model, _ = build_network(Config(model=SHAPES[shape]), ON_THE_CPU, lora=lora)
    else:
        model = GPT(SHAPES[shape], lora=lora)
    randomize(model)
    dense = dense_twin(model, closed_form(model, lora))
    ids = some_ids()
    targets = ids.roll(-1, 1)
    targets[:, :9] = IGNORE
    loss, count = model(ids, targets)
    (loss / count).backward()
    of_dense, _ = dense(ids, targets)
    torch.testing.assert_close(loss, of_dense, rtol=1e-5, atol=0)
    (of_dense / count).backward()
    ours, theirs = dict(model.named_parameters()), dict(dense.named_parameters())
    trained = {name for name, parameter in ours.items() if parameter.requires_grad}
    assert trained == model.new_parameters()
    assert {name for name, parameter in ours.items() if parameter.grad is not None} == trained
    for name in trained:
        layer, _, kind = name.rpartition(".")
        gradient = theirs[f"{layer}.weight"].grad
        expected = {
            "lora_a": lambda layer=layer, d=gradient: lora.scale * ours[f"{layer}.lora_b"].T @ d,
            "lora_b": lambda layer=layer, d=gradient: lora.scale * d @ ours[f"{layer}.lora_a"].T,
            "markup_rows": lambda d=gradient: d[list(lora.markup_ids)],
        }[kind]()
        torch.testing.assert_close(ours[name].grad, expected.detach(), rtol=1e-3, atol=2e-6, msg=name)


@pytest.mark.parametrize("relu", [False, True])
def test_gradients_of_a_layer_by_finite_differences(relu: bool) -> None:
    layer = LoraLinear(5, 4, True, ops.PYTORCH_OPS, LoraSpec(2, 3.0)).double()
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(3, 5, dtype=torch.double, requires_grad=True)

    def run(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"lora_a": a, "lora_b": b}, (x, relu))

    factors = [layer.lora_a.detach().requires_grad_(), layer.lora_b.detach().requires_grad_()]
    assert torch.autograd.gradcheck(run, (x, *factors))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("shape", ["gpt2", "modern-untied"])
def test_a_narrow_precision_is_close_to_fp32(shape: str, precision: Any) -> None:
    """Loss and gradients of all trained parameters, with the kernels of a training run."""
    found = {}
    ids = some_ids()
    for name in ("fp32", precision):
        runtime = Runtime("cpu", name, False, 2, True)
        model, _ = build_network(Config(model=SHAPES[shape]), runtime, lora=SPECS["markup"])
        randomize(model)
        with runtime.autocast():
            loss, count = model(ids, ids.roll(-1, 1))
        (loss / count).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found[name] = float(loss.detach() / count), torch.cat([gradient.flatten() for gradient in gradients])
    assert found[precision][0] == pytest.approx(found["fp32"][0], rel=0.01)
    assert (found[precision][1] - found["fp32"][1]).norm() < 0.05 * found["fp32"][1].norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_training_begins_with_the_base_model(shape: str) -> None:
    """B and the changes of rows are zero; A is uniform within 1/sqrt(fan in), as PEFT begins."""
    base = GPT(SHAPES[shape])
    base.init_weights(3)
    model = GPT(SHAPES[shape], lora=LoraSpec(8, 16.0, dropout=0.5, markup_ids=MARKUP))
    model.init_weights(3)
    ids = some_ids()
    with torch.no_grad():
        assert torch.equal(model(ids), base(ids))
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for layer, inputs in (("attention.q_proj", 32), ("mlp.down_proj", SHAPES[shape].mlp_hidden)):
        a = values[f"blocks.1.{layer}.lora_a"]
        assert a.abs().max() <= inputs**-0.5
        assert a.std() == pytest.approx(inputs**-0.5 / 3**0.5, rel=0.15)
    assert all(torch.equal(value, values[name]) for name, value in base.named_parameters())
    assert not torch.equal(values["blocks.0.attention.q_proj.lora_a"], values["blocks.1.attention.q_proj.lora_a"])


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_native_decoding_reads_the_merged_weights(shape: str) -> None:
    """Torch and C give the same logits; so does int8 for a model that was rounded to it."""
    for int8, tolerance in ((False, 1e-4), (True, 1e-3)):
        model = randomize(GPT(SHAPES[shape], lora=SPECS["markup"])).eval()
        if int8:
            round_to_int8(model)
        ids = some_ids()
        decoder = native_decoder(model, torch.float32, int8=int8)
        assert not isinstance(decoder, Unavailable)
        ours, theirs = (KVCache(model.config, len(ids), 12) for _ in range(2))
        for cache in (ours, theirs):
            model.hidden(ids[:, :10], cache)
        for place in (10, 11):
            expected = model.logits(model.hidden(ids[:, place : place + 1], theirs)[:, -1])
            found = decoder(ids[:, place].contiguous(), ours)
            assert (found - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_rounds_the_merged_weights(shape: str) -> None:
    model = randomize(GPT(SHAPES[shape], lora=SPECS["markup"]))
    before = merged(model)
    round_to_int8(model)
    after = merged(model)
    for name in (name for name in before if "_proj.weight" in name or name == "head.weight"):
        integers, scales = quantize_rows(before[name])
        torch.testing.assert_close(after[name], integers * scales[:, None], rtol=1e-6, atol=1e-7)


def test_a_label_head_is_trained_beside_the_factors() -> None:
    model = randomize(GPT(SHAPES["gpt2"], head=HeadSpec("class", 3), lora=SPECS["markup"]))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == model.new_parameters()
    assert {"score.weight", "token_embedding.markup_rows"} < trained
    ids = some_ids()
    targets = torch.full_like(ids, IGNORE)
    targets[:, -1] = torch.tensor([0, 2, 1])
    loss, _ = model(ids, targets)
    loss.backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(dense_twin(model, merged(model))(ids), model(ids), rtol=0, atol=1e-4)


def test_without_lora_nothing_is_copied() -> None:
    model = GPT(SHAPES["gpt2"])
    weights = merged(model)
    assert weights.keys() == dict(model.named_parameters()).keys()
    assert all(weights[name].data_ptr() == parameter.data_ptr() for name, parameter in model.named_parameters())


def test_dropout_is_of_the_factors_input_alone() -> None:
    """While training, each element is dropped with its probability; the base model's part is undisturbed."""
    layer = LoraLinear(400, 3, False, ops.PYTORCH_OPS, LoraSpec(400, 400.0, dropout=0.25))
    with torch.no_grad():
        layer.weight.zero_()
        layer.lora_a.copy_(torch.eye(400))
        layer.lora_b.fill_(1.0)
    x = torch.ones(50, 400)
    mean = float(layer(x).detach().mean()) / 400
    assert mean == pytest.approx(1.0, abs=0.05)
    assert layer(x).std() > 0
    layer.eval()
    assert torch.equal(layer(x), torch.full((50, 3), 400.0))


@pytest.mark.parametrize(
    ("config", "lora", "draws"),
    [
        ({}, None, False),
        ({"dropout": 0.1}, None, True),
        ({}, LoraSpec(2, 2.0), False),
        ({}, LoraSpec(2, 2.0, dropout=0.1), True),
        ({"dropout": 0.1}, LoraSpec(2, 2.0), True),
    ],
)
def test_what_draws_random_numbers(config: dict[str, float], lora: LoraSpec | None, draws: bool) -> None:
    assert GPT(ModelConfig(**SIZES, **config), lora=lora).draws_random_numbers is draws


@pytest.mark.parametrize("faulty", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"markup_ids": (3, 3)}])
def test_specs_that_make_no_sense(faulty: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"LoRA needs|twice"):
        LoraSpec(**{"rank": 2, "alpha": 2.0, **faulty})


@pytest.mark.parametrize("targets", [("gate_proj",), ("q_proj", "c_attn")])
def test_a_target_that_the_network_does_not_have(targets: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"the blocks have no linear layer {targets[-1]}"):
        GPT(SHAPES["gpt2"], lora=LoraSpec(2, 2.0, targets=targets))
