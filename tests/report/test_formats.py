from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.report.formats import amount, duration, figure, part_of, printable, rate, short, unbroken


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (192, "3 min 12 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (273_600, "3 d 04 h"),
        (math.inf, "?"),
        (-1, "?"),
    ],
)
def test_durations_have_readable_units(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_a_duration_breaks_only_between_its_parts() -> None:
    assert unbroken(duration(90)).split(" ") == ["1\xa0min", "30\xa0s"]


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0, "0"),
        (840, "840"),
        (999.9, "1K"),
        (12_345, "12.3K"),
        (47_987_712, "48M"),
        (1.2e9, "1.2B"),
        (3e12, "3T"),
        (0.25, "0.25"),
    ],
)
def test_numbers_are_shortened(number: float, written: str) -> None:
    assert short(number) == written


@given(st.floats(1, 1e14))
def test_a_short_number_is_within_half_a_percent(number: float) -> None:
    sizes = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    text = short(number)
    value = float(text[:-1]) * sizes[text[-1]] if text[-1] in sizes else float(text)
    assert value == pytest.approx(number, rel=0.005)


def test_amounts_and_rates_have_readable_units() -> None:
    assert amount(999, "bytes") == "999 bytes"
    assert amount(12_300_000, "bytes") == "12.3 MB"
    assert amount(1234, "documents") == "1,234 documents"
    assert amount(1, "documents") == "1 document"
    assert amount(0.6, "entries") == "1 entry"
    assert part_of(1, 6, "runs") == "1 of 6 runs"
    assert part_of(4_200_000, 12_300_000, "bytes") == "4.2 MB of 12.3 MB"
    assert rate(3_200_000, "bytes") == "3.2 MB/s"
    assert rate(1 / 30, "runs") == "30 s per run"
    assert rate(0, "runs") == "0 runs/s"
    assert rate(12_345, "tokens") == "12.3K tokens/s"


def test_figures_of_every_type_are_formatted() -> None:
    values = [None, True, 12_345, 0.123456789, 23_456.7, ["a", 1], [], ""]
    assert [figure(value) for value in values] == ["—", "yes", "12,345", "0.12346", "23,457", "a, 1", "—", "—"]


def test_printable_keeps_letters_of_every_script() -> None:
    text = "Việt हिन्दी العربية עברית 中文 👩‍👩‍👧\tlines\nkept"
    assert printable(text) == text


@given(st.text(st.characters(codec=None)))
def test_printable_text_can_be_encoded_and_has_no_control_characters(text: str) -> None:
    shown = printable(text).encode("utf-8")
    assert not any((byte < 0x20 and byte not in b"\n\t") or byte == 0x7F for byte in shown)


@pytest.mark.parametrize(
    ("number", "unit", "said"),
    [
        (1, "documents", "1 document"),
        (0.6, "tokens", "1 token"),
        (1, "entries", "1 entry"),
        (2, "entries", "2 entries"),
        (1, "bytes", "1 byte"),
        (0, "bytes", "0 bytes"),
    ],
)
def test_one_is_singular(number: float, unit: str, said: str) -> None:
    assert amount(number, unit) == said
