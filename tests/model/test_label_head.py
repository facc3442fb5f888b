"""Label heads, compared with transformers' classifiers on padded batches of mixed lengths, and with closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers_twins import gpt2_config, load_gpt2, load_modern, qwen3_config

from acorn.config import ModelConfig
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec, LabelHead, count_targets
from acorn.model.loss import IGNORE

V, PAD = 97, 96
SIZES: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 48, "vocab_size": V}
SHAPES = {
    "original": ModelConfig(architecture="original", **SIZES),
    "gpt2": ModelConfig(architecture="gpt2", **SIZES),
    "modern": ModelConfig(n_kv_head=2, **SIZES),
    "llama": ModelConfig(qk_norm=False, norm_eps=1e-5, **SIZES),
}
LENGTHS = (5, 31, 1, 12, 18, 30)


def random_model(config: ModelConfig, head: HeadSpec) -> GPT:
    model = GPT(config, head=head)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1))
    return model.eval()


def of_transformers(model: GPT, task: str, **more: Any) -> transformers.PreTrainedModel:
    """`task`: Sequence or Token."""
    config, weights = model.config, model.state_dict()
    more |= {"num_labels": model.head_spec.outputs, "pad_token_id": PAD}
    if config.architecture != "modern":
        kind = getattr(transformers, f"GPT2For{task}Classification")
        return load_gpt2(kind(gpt2_config(config, classifier_dropout=0.0, **more)), weights)
    family = "Qwen3" if config.qk_norm else "Llama"
    kind, settings = (getattr(transformers, f"{family}{end}") for end in (f"For{task}Classification", "Config"))
    return load_modern(kind(qwen3_config(config, settings, **more)), weights)


def some_examples() -> tuple[Tensor, Tensor, Tensor]:
    """Ids (B, T) padded on the right, attention mask (B, T), and indices (B,) of the last tokens in B T."""
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(PAD, (length,), generator=generator) for length in LENGTHS]
    ids = pad_sequence(rows, batch_first=True, padding_value=PAD)
    mask = (torch.arange(ids.size(1)) < torch.tensor(LENGTHS)[:, None]).long()
    last = torch.arange(len(rows)) * ids.size(1) + torch.tensor(LENGTHS) - 1
    return ids, mask, last


def spread(labels: Tensor, places: Tensor, n: int, T: int, fill: float) -> Tensor:
    """Targets (n, T, ...) that are `labels` at `places` of the flattened positions, and `fill` elsewhere."""
    targets = torch.full((n * T, *labels.shape[1:]), fill, dtype=labels.dtype)
    targets[places] = labels
    return targets.view(n, T, *labels.shape[1:])


PROBLEMS = {
    "class": ("single_label_classification", 4),
    "labels": ("multi_label_classification", 3),
    "value": ("regression", 1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", PROBLEMS)
def test_outputs_loss_and_gradients_equal_those_of_transformers(shape: str, kind: Any) -> None:
    """At the last token of each row, which padding on the right does not change."""
    problem, outputs = PROBLEMS[kind]
    model = random_model(SHAPES[shape], HeadSpec(kind, outputs))
    theirs = of_transformers(model, "Sequence", problem_type=problem)
    ids, mask, last = some_examples()
    labels = {
        "class": torch.tensor([0, 3, 1, 2, 3, 0]),
        "labels": (torch.arange(18).reshape(6, 3) % 2).float(),
        "value": torch.linspace(-2, 3, 6)[:, None],
    }[kind]
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels)
    found = model(ids, rows=last)
    assert expected.logits.std() > 0.1
    torch.testing.assert_close(found, expected.logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(found, model(ids).flatten(0, 1)[last], rtol=0, atol=1e-5)
    targets = spread(labels, last, *ids.shape, IGNORE if kind == "class" else math.nan)
    loss, count = model(ids, targets, rows=last)
    whole, whole_count = model(ids, targets)
    assert count == whole_count == model.count(targets) == labels.numel()
    torch.testing.assert_close(loss, whole, rtol=1e-6, atol=0)
    torch.testing.assert_close(loss / count, expected.loss, rtol=1e-4, atol=1e-5)
    (loss / count).backward()
    expected.loss.backward()
    norm = "transformer.ln_f" if shape in ("original", "gpt2") else "model.norm"
    theirs_named = dict(theirs.named_parameters())
    for ours, name in (("score.weight", "score.weight"), ("final_norm.weight", f"{norm}.weight")):
        gradient = dict(model.named_parameters())[ours].grad
        torch.testing.assert_close(gradient, theirs_named[name].grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_tags_equal_those_of_transformers(shape: str) -> None:
    """At every token that has a tag."""
    model = random_model(SHAPES[shape], HeadSpec("tag", 5, bias=True))
    theirs = of_transformers(model, "Token")
    ids, mask, _ = some_examples()
    tags = torch.arange(ids.numel()).reshape(ids.shape) % 5
    tags = tags.masked_fill((mask == 0) | (tags == 2), IGNORE)
    expected = theirs(input_ids=ids, attention_mask=mask, labels=tags.masked_fill(tags == IGNORE, -100))
    is_text = mask.bool()
    torch.testing.assert_close(model(ids)[is_text], expected.logits[is_text], rtol=0, atol=1e-4)
    loss, count = model(ids, tags)
    torch.testing.assert_close(loss / count, expected.loss, rtol=1e-5, atol=1e-5)
    rows = (tags.flatten() != IGNORE).nonzero().squeeze(1)
    gathered, of_gathered = model(ids, tags, rows=rows)
    assert of_gathered == count == model.count(tags)
    torch.testing.assert_close(gathered, loss, rtol=1e-6, atol=0)


def test_class_weights_are_those_of_pytorchs_weighted_mean() -> None:
    weights = (0.5, 2.0, 1.0, 4.0)
    spec = HeadSpec("class", 4, class_weights=weights)
    torch.manual_seed(0)
    head = LabelHead(8, spec)
    torch.nn.init.normal_(head.weight)
    x, targets = torch.randn(3, 7, 8), torch.randint(4, (3, 7))
    targets[1, :5] = IGNORE
    loss, count = head(x, targets)
    expected = F.cross_entropy(
        (x @ head.weight.T).flatten(0, 1), targets.flatten(), torch.tensor(weights), ignore_index=IGNORE
    )
    torch.testing.assert_close(loss / count, expected)
    assert float(count) == pytest.approx(count_targets(targets, spec), rel=1e-6)
    assert "class_weights" not in head.state_dict()


def test_nan_marks_targets_that_are_not_counted() -> None:
    """Single labels of a row may be unknown; their outputs get no gradient."""
    head = LabelHead(4, HeadSpec("labels", 2))
    torch.nn.init.normal_(head.weight)
    targets = torch.tensor([[[1.0, math.nan], [0.0, math.nan]]])
    loss, count = head(torch.randn(1, 2, 4), targets)
    loss.backward()
    assert count == 2
    assert loss.isfinite()
    assert not head.weight.grad[1].any()
    assert head.weight.grad[0].all()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_a_head_computes_in_fp32_inside_autocast(precision: torch.dtype) -> None:
    head = LabelHead(64, HeadSpec("value", 1))
    torch.nn.init.normal_(head.weight)
    x = torch.randn(2, 3, 64)
    with torch.autocast("cpu", dtype=precision):
        outputs = head(x)
    assert outputs.dtype == torch.float32
    assert torch.equal(outputs, head(x))


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        ({"kind": "class", "outputs": 0}, "at least one output"),
        ({"kind": "value", "outputs": 2, "class_weights": (1.0, 2.0)}, "are for classes"),
        ({"kind": "class", "outputs": 2, "class_weights": (1.0,)}, "as many weights"),
        ({"kind": "class", "outputs": 2, "class_weights": (1.0, 0.0)}, "above 0"),
    ],
)
def test_specs_that_make_no_sense(faulty: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadSpec(**faulty)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_head_is_new(shape: str) -> None:
    """Everything else has the names, shapes and initial values of a language model, of which it lacks the head."""
    model, base = GPT(SHAPES[shape], head=HeadSpec("tag", 3, bias=True)), GPT(SHAPES[shape])
    for network in (model, base):
        network.init_weights(7)
    ours, theirs = dict(model.named_parameters()), dict(base.named_parameters())
    assert model.new_parameters() == {"score.weight", "score.bias"}
    assert base.new_parameters() == frozenset()
    assert ours.keys() - model.new_parameters() == theirs.keys() - {"head.weight"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() & theirs.keys())
    assert 0.01 < ours["score.weight"].std() < 0.03
    assert not ours["score.bias"].any()


def test_initial_values_of_some_parameters_only() -> None:
    model = random_model(SHAPES["modern"], HeadSpec("class", 3))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.init_weights(7, model.new_parameters())
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"score.weight"}


def test_a_model_with_a_label_head_has_no_logits() -> None:
    model = random_model(SHAPES["gpt2"], HeadSpec("class", 3))
    assert model.head is None
    with pytest.raises(ValueError, match="does not predict the next token"):
        model.logits(torch.zeros(1, 32))
