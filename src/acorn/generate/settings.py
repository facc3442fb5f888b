"""Sampling settings, validated. Does not import torch, so that the command line can show the defaults quickly."""

from __future__ import annotations

import dataclasses
import difflib
import math
import struct
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

from acorn.errors import UsageError, shown

GREEDY_TEMPERATURE = 1e-5
"""Lower temperatures mean greedy decoding: logits divided by them would overflow fp32."""

LARGEST_SEED = 10**4000
"""Limit of the absolute value of a seed: Python prints integers of at most 4,300 digits."""

SMALLEST_NORMAL_FP32 = 2.0**-126
"""Smallest normal value of fp32. Smaller values are less precise, and their reciprocals may be infinite."""


class _Kind(NamedTuple):
    type: type
    meaning: str


_WHOLE, _REAL, _BOOL = _Kind(Integral, "a whole number"), _Kind(Real, "a number"), _Kind(bool, "True or False")
_KINDS = {
    **dict.fromkeys(("max_new_tokens", "top_k", "seed"), _WHOLE),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repetition_penalty"), _REAL),
    **dict.fromkeys(("greedy", "ignore_eos", "allow_unknown"), _BOOL),
}
"""Required type of each setting; NumPy scalars are accepted too."""


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are sampled. `acorn generate` and `LanguageModel.generate` use these names and defaults.

    Attributes:
        max_new_tokens: largest number of new tokens.
        temperature: divides the logits; 0: greedy.
        top_k: use only the k most likely tokens; 0, or more than the vocabulary size: all.
        top_p: use only the most likely tokens whose probabilities sum to this value; 1: all.
        min_p: use only tokens with at least this share of the highest probability; 0: all.
        repetition_penalty: makes tokens that already occurred less likely; 1: no penalty.
        seed: equal seeds give equal text; None: a random seed.
        greedy: always choose the most likely token.
        stop: the text ends before the first of these strings; a single string is the same as a list of one.
        ignore_eos: continue after the document separator.
        allow_unknown: allow the unknown token, which represents text that the vocabulary lacks and is not shown.

    Raises:
        UsageError: an unknown setting, or an invalid value.
    """

    max_new_tokens: int = 200
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    greedy: bool = False
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    allow_unknown: bool = False

    def __new__(cls, *values: Any, **named: Any) -> SamplingSettings:
        """Refuses unknown names before `__init__`, whose TypeError would not suggest the right name."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [name for name in named if name not in known]
        if unknown:
            near = difflib.get_close_matches(unknown[0], known, n=1)
            raise UsageError(
                f"There is no sampling setting {unknown[0]!r}" + (f"; did you mean {near[0]}?" if near else "."),
                where=unknown[0],
                fix=f"the settings are {', '.join(known)}",
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _strings(self.stop))
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            fits = isinstance(value, kind.type) and (kind.type is bool or not isinstance(value, bool))
            _require(fits or (name == "seed" and value is None), name, value, kind.meaning)
        # Each condition is false for NaN.
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "1 or more")
        _require(
            0 <= in_fp32(self.temperature) < math.inf,
            "temperature",
            self.temperature,
            "a finite number of 0 (greedy) or more",
        )
        _require(self.top_k >= 0, "top_k", self.top_k, "0 (all tokens) or more")
        _require(
            in_fp32(self.top_p) > 0 and self.top_p <= 1,
            "top_p",
            self.top_p,
            "a number above 0 and up to 1 (all tokens)",
        )
        _require(0 <= self.min_p < 1, "min_p", self.min_p, "a number from 0 (all tokens) to below 1")
        penalty = in_fp32(self.repetition_penalty)  # logits are multiplied or divided by it
        _require(
            SMALLEST_NORMAL_FP32 <= penalty <= 1 / SMALLEST_NORMAL_FP32,
            "repetition_penalty",
            self.repetition_penalty,
            "a number above 0 (1: no penalty) that is not too small or large for fp32, such as 0.5 or 1.2",
        )
        _require("" not in self.stop, "stop", "", "a string of at least one character")
        _require(
            self.seed is None or -LARGEST_SEED < self.seed < LARGEST_SEED, "seed", self.seed, "a seed of fewer digits"
        )

    @property
    def is_greedy(self) -> bool:
        return self.greedy or self.temperature < GREEDY_TEMPERATURE


def in_fp32(value: float) -> float:
    """`value` rounded to fp32, the precision of logits; infinite if it overflows."""
    try:
        return float(struct.unpack("f", struct.pack("f", float(value)))[0])
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _strings(value: object) -> tuple[str, ...]:
    """The strings as a tuple, a single string as a tuple of one. Other types are refused."""
    strings = tuple(value) if isinstance(value, list | tuple) else (value,)
    for string in strings:
        _require(isinstance(string, str), "stop", string, "a string, or a list of strings")
    return strings


def _require(fits: bool, name: str, value: object, meaning: str) -> None:
    if not fits:
        raise UsageError(f"{name} cannot be {shown(value)}.", where=name, fix=f"give {meaning}")
