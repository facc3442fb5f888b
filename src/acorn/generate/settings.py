"""How text is drawn, as a value that checks itself. Without torch, so that the command line can show the defaults."""

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
"""Temperatures below this are greedy: logits divided by them leave fp32's range."""

LARGEST_SEED = 10**4000
"""Seeds are smaller, by absolute value: Python writes integers of at most 4,300 digits."""

_SMALLEST_NORMAL = 2.0**-126
"""Of fp32. What is smaller has fewer digits, and its reciprocal may be infinite."""


class _Kind(NamedTuple):
    type: type
    meaning: str


_WHOLE, _REAL, _TRUTH = _Kind(Integral, "a whole number"), _Kind(Real, "a number"), _Kind(bool, "True or False")
_KINDS = {
    **dict.fromkeys(("max_new_tokens", "top_k", "seed"), _WHOLE),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repetition_penalty"), _REAL),
    **dict.fromkeys(("greedy", "ignore_eos", "allow_unknown"), _TRUTH),
}
"""What the value of each setting must be; NumPy's numbers are numbers too."""


@dataclass(frozen=True)
class SamplingSettings:
    """How text is drawn. `acorn generate` and `LanguageModel.generate` have these names and these defaults.

    Attributes:
        max_new_tokens: tokens to draw at most.
        temperature: logits are divided by it; 0: greedy.
        top_k: only the k most likely tokens; 0, or more than the vocabulary: all.
        top_p: only the most likely tokens that together reach this probability; 1: all.
        min_p: only tokens at least this share as likely as the most likely one; 0: all.
        repetition_penalty: makes tokens that were already there less likely; 1: no penalty.
        seed: equal seeds give equal text; None: another one each time.
        greedy: always the most likely token.
        stop: the text ends before the first of these strings; a lone string stands for a list of one.
        ignore_eos: go on after the document separator.
        allow_unknown: the unknown token, which stands for what the vocabulary cannot spell and is shown as nothing,
            may be drawn.

    Raises:
        UsageError: a name that is not one of these, or a value without meaning.
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
        """Refuses unknown names before `__init__`, whose TypeError would not say what was meant."""
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
        # Each test is written so that NaN fails it.
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "1 or more")
        _require(
            0 <= in_fp32(self.temperature) < math.inf, "temperature", self.temperature, "0 (greedy) or more, and finite"
        )
        _require(self.top_k >= 0, "top_k", self.top_k, "0 (all tokens) or more")
        _require(
            in_fp32(self.top_p) > 0 and self.top_p <= 1, "top_p", self.top_p, "above 0, and 1 (all tokens) or less"
        )
        _require(0 <= self.min_p < 1, "min_p", self.min_p, "0 (all tokens) or more, and below 1")
        penalty = in_fp32(self.repetition_penalty)  # scores are multiplied with it or divided by it
        _require(
            _SMALLEST_NORMAL <= penalty <= 1 / _SMALLEST_NORMAL,
            "repetition_penalty",
            self.repetition_penalty,
            "a number above 0 (1: no penalty) that fp32 can divide by, such as 0.5 or 1.2",
        )
        _require("" not in self.stop, "stop", "", "a string of at least one character")
        _require(
            self.seed is None or -LARGEST_SEED < self.seed < LARGEST_SEED, "seed", self.seed, "one of fewer digits"
        )

    @property
    def is_greedy(self) -> bool:
        return self.greedy or self.temperature < GREEDY_TEMPERATURE


def in_fp32(value: float) -> float:
    """`value` rounded to single precision, in which tensors hold scores; infinite where that is too small for it."""
    try:
        return float(struct.unpack("f", struct.pack("f", float(value)))[0])
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _strings(value: object) -> tuple[str, ...]:
    """A lone string as a tuple of one. Anything but strings is refused."""
    strings = tuple(value) if isinstance(value, list | tuple) else (value,)
    for string in strings:
        _require(isinstance(string, str), "stop", string, "a string, or a list of strings")
    return strings


def _require(fits: bool, name: str, value: object, meaning: str) -> None:
    if not fits:
        raise UsageError(f"{name} cannot be {shown(value)}.", where=name, fix=f"give {meaning}")
