"""Any valid config, generated from the declared fields, is unchanged after writing and reading TOML."""

from __future__ import annotations

import tomllib
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from acorn.config import LARGEST_SINGLE, SMALLEST_SINGLE, Config, ModelConfig, Section, SinglePrecisionSection
from acorn.config_files import flatten, load_config, to_toml
from acorn.errors import UsageError

LARGEST = 2**63 - 1


def values_of(field: FieldInfo, section: type[Section] = Section) -> st.SearchStrategy[Any]:
    """The values of a field, by its type and bounds, so that new fields are covered automatically."""
    low, high, above, below = None, None, None, None
    shortest = 0
    for bound in field.metadata:
        low = bound.ge if isinstance(bound, annotated_types.Ge) else low
        high = bound.le if isinstance(bound, annotated_types.Le) else high
        above = bound.gt if isinstance(bound, annotated_types.Gt) else above
        below = bound.lt if isinstance(bound, annotated_types.Lt) else below
        shortest = bound.min_length if isinstance(bound, annotated_types.MinLen) else shortest
    single = issubclass(section, SinglePrecisionSection) and field.annotation is float
    kind = SINGLE if single else field.annotation
    return by_type(kind, low, high, above, below, shortest)


SINGLE = np.float32
"""A float in single precision."""


def by_type(kind: Any, low: Any, high: Any, above: Any, below: Any, shortest: int) -> st.SearchStrategy[Any]:
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of([by_type(part, low, high, above, below, shortest) for part in get_args(kind)])
    if get_origin(kind) is typing.Annotated:
        return by_type(get_args(kind)[0], low, high, above, below, shortest)
    if get_origin(kind) is tuple:
        return st.lists(by_type(get_args(kind)[0], None, None, None, None, 1), max_size=3).map(tuple)
    if kind is bool:
        return st.booleans()
    if kind is int:
        most = below - 1 if below is not None else high
        return st.integers(low, LARGEST if most is None else most)
    if kind in (float, SINGLE):
        high = LARGEST_SINGLE if kind is SINGLE and high is None else high
        ends = (low if above is None else above, high if below is None else below)
        open_ends = {"exclude_min": above is not None, "exclude_max": below is not None}
        width = {"width": 32, "allow_subnormal": False} if kind is SINGLE else {}
        return st.floats(*ends, **open_ends, allow_infinity=False, **width)
    assert kind is str, f"a field of the type {kind} needs a way to be drawn"
    return st.text(min_size=shortest, max_size=20)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """Fields of a model whose widths fit each other."""
    fields = {name: draw(values_of(field, ModelConfig)) for name, field in ModelConfig.model_fields.items()}
    modern = fields["architecture"] == "modern"
    kv_heads, groups, width = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 40))
    heads = kv_heads * groups
    fields |= {"n_head": heads, "n_embd": heads * 2 * width, "n_kv_head": kv_heads if modern else 0}
    fields["head_width"] = 2 * draw(st.integers(0, 40)) if modern else 0
    if draw(st.booleans()):
        fields |= {"n_head": 0, "n_kv_head": 0}
    return fields


@st.composite
def configs(draw: st.DrawFn) -> Config:
    values: dict[str, Any] = {"name": draw(st.from_regex(r"[^/\\\x00-\x1f\ud800-\udfff]{1,12}", fullmatch=True))}
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            values[name] = {key: draw(values_of(entry, section)) for key, entry in section.model_fields.items()}
    values["data"]["encoding"] = draw(
        st.sampled_from(["utf-8", "cp1252", "utf-16"])
    )  # the only string with a restricted set of values
    values["model"] = draw(shapes())
    if values["model"]["architecture"] == "original":  # bigram initialization needs an untied new network
        values["train"]["init"] = draw(st.sampled_from(["random", "auto"]))
    elif values["train"]["init"] == "bigrams":
        values["train"]["init_from"], values["model"]["tied"] = "", False
    values["train"][draw(st.sampled_from(["steps", "minutes"]))] = 0  # they are mutually exclusive
    if values["train"]["minutes"]:
        values["finetune"]["epochs"] = 0.0  # which steps may stand beside
    labels = (label.strip() for label in values["finetune"]["labels"])
    values["finetune"]["labels"] = tuple(dict.fromkeys(label for label in labels if label))
    whole = values["model"]["block_size"]
    values["schedule"]["short_context"] = draw(st.sampled_from([0, 1, whole, whole + 1]))  # others must divide it
    return Config.model_validate(values)


def written(config: Config) -> dict[str, Any]:
    """The settings that a config file holds: those of finetuning only if any of them is set."""
    empty = [name for name in ("finetune", "lora") if getattr(config, name) == getattr(Config(), name)]
    return {key: value for key, value in flatten(config).items() if key.partition(".")[0] not in empty}


@settings(max_examples=60)
@given(config=configs())
def test_any_config_is_unchanged_after_toml(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(to_toml(config), "utf-8")
    assert load_config(path) == config


@settings(max_examples=40)
@given(config=configs())
def test_tomllib_reads_every_value(config: Config) -> None:
    read = tomllib.loads(to_toml(config))
    found = {"name": read.pop("name")}
    found |= {f"{section}.{key}": value for section, values in read.items() for key, value in values.items()}
    expected = {key: list(value) if isinstance(value, tuple) else value for key, value in written(config).items()}
    assert found == expected
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in expected.items()}


@settings(max_examples=40)
@given(config=configs())
def test_every_value_works_as_an_override(config: Config) -> None:
    """A value from the file, given on the command line, sets the same."""
    assume(not (config.train.steps and config.finetune.epochs))  # a run stores both, and nobody gives both
    lines = [line for line in to_toml(config).split("\n") if " = " in line and not line.startswith("#")]
    values = [line.partition(" = ")[2] for line in lines]
    overrides = [f"{key}={value}" for key, value in zip(written(config), values, strict=True)]
    assert load_config(None, overrides) == config


def test_heads_are_as_close_to_64_wide_as_possible() -> None:
    """Compared with the definition, by trying every number of heads."""
    for n_embd in range(1, 700):
        fits = [n for n in range(1, n_embd + 1) if n_embd % n == 0 and n_embd // n % 2 == 0]
        best = min(fits, key=lambda n: (abs(n_embd // n - 64), n), default=1)
        assert ModelConfig.model_construct(n_embd=n_embd, n_head=0).heads == best


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("optimizer.eps=1e-46", "single precision"),  # above 0, but rounded to 0 in use
        ("optimizer.lr=1e-40", "single precision"),
        ("optimizer.clip=1e39", "single precision"),
        ("model.rope_theta=1e39", "single precision"),
        ("model.norm_eps=1e-50", "single precision"),
        ("model.dropout=0.99999999", "below 1"),  # 1 in single precision, where 1 / (1 - p) is computed
        ("optimizer.beta2=0.9999999999", "below 1"),
    ],
)
def test_floats_are_checked_in_the_precision_of_their_use(override: str, part: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(UsageError, match=key) as caught:
        load_config(None, [override])
    assert part in caught.value.what


@pytest.mark.parametrize("value", [SMALLEST_SINGLE, LARGEST_SINGLE])
def test_limits_of_single_precision_equal_numpys(value: float) -> None:
    assert value in (np.finfo(np.float32).tiny, np.finfo(np.float32).max)
    assert load_config(None, [f"optimizer.eps={value!r}"]).optimizer.eps == value


@pytest.mark.parametrize(
    "override",
    [
        "model.n_embd=1000000000000",
        "model.n_layer=1000000000",
        "model.block_size=10000000000",
        "model.vocab_size=100000000000",
        "tokenizer.vocab_size=1000000000000",
        "train.batch_size=1000000000000",
    ],
)
def test_absurdly_large_networks_are_refused(override: str) -> None:
    """Before anything is looped over, built or allocated."""
    with pytest.raises(UsageError, match="should be at most"):
        load_config(None, [override])
