"""Sampling settings: names, values, and the precision that values are used in."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from acorn.errors import UsageError
from acorn.generate.settings import SamplingSettings, in_fp32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", 1e39),  # finite, but not in fp32
        ("temperature", "warm"),
        ("top_p", 0.0),
        ("top_p", -1.0),
        ("top_p", 1.0001),
        ("top_p", math.nan),
        ("top_p", 1e-46),  # above 0, but not in fp32
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_k", True),
        ("min_p", -0.01),
        ("min_p", 1.0),
        ("min_p", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -2.0),
        ("repetition_penalty", math.nan),
        ("repetition_penalty", math.inf),
        ("repetition_penalty", 1e-45),
        ("repetition_penalty", 1e-46),
        ("repetition_penalty", 1e39),
        ("max_new_tokens", 0),
        ("max_new_tokens", 10.5),  # no count of tokens ever equals it
        ("max_new_tokens", None),
        ("seed", 1.5),
        *(
            (name, sign * 10**400)
            for name in ("temperature", "top_p", "min_p", "repetition_penalty")
            for sign in (1, -1)
        ),
        ("greedy", "no"),
        ("stop", ("", "x")),
        ("stop", ""),
        ("stop", [1]),
        ("stop", 1),
    ],
)
def test_invalid_values_are_refused(name: str, value: Any) -> None:
    """Fault 55: the message names the setting and its valid values."""
    with pytest.raises(UsageError, match=f"^{name} cannot be ") as caught:
        SamplingSettings(**{name: value})
    assert caught.value.fix.startswith("give ")


@pytest.mark.parametrize("value", [0.0, 1.0, -1.2e-38, 1e-45, 1e-46, 3.4e38, 0.1, 1 / 3])
def test_rounding_to_fp32_equals_numpys(value: float) -> None:
    assert in_fp32(value) == float(np.float32(value))
    assert in_fp32(-1e300) == -math.inf


def test_a_single_stop_string_is_a_list_of_one() -> None:
    assert SamplingSettings(stop="end").stop == SamplingSettings(stop=["end"]).stop == ("end",)  # type: ignore[arg-type]


def test_numpy_scalars_are_accepted() -> None:
    settings = SamplingSettings(max_new_tokens=np.int64(3), temperature=np.float32(0.5), seed=np.int32(1))  # type: ignore[arg-type]
    assert (settings.max_new_tokens, settings.temperature, settings.seed) == (3, 0.5, 1)


def test_an_unknown_setting_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"'temprature'; did you mean temperature\?") as caught:
        SamplingSettings(temprature=1.0)  # type: ignore[call-arg]
    assert "max_new_tokens" in caught.value.fix
    with pytest.raises(UsageError, match=r"did you mean stop\?"):
        dataclasses.replace(SamplingSettings(), stopp="x")


def test_settings_can_be_copied() -> None:
    settings = SamplingSettings(seed=3, stop=("a",))
    assert copy.deepcopy(settings) == copy.copy(settings) == settings


def test_integers_too_long_to_print_are_refused() -> None:
    """Python prints integers of at most 4,300 digits, also in messages."""
    for name in ("max_new_tokens", "top_k", "temperature", "seed"):
        with pytest.raises(UsageError, match=f"{name} cannot be <int too long to show>"):
            SamplingSettings(**{name: -(10**5000)})


def test_very_large_top_k_and_seed_are_accepted() -> None:
    assert SamplingSettings(top_k=10**5000, seed=-(10**400)).top_k == 10**5000
    assert in_fp32(10**400) == math.inf
    assert in_fp32(-(10**400)) == -math.inf
