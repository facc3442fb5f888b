"""When a validation loss counts as risen."""

from __future__ import annotations

import pytest

from acorn.report.rise import Rise, remedies, rise_in, rise_of


@pytest.mark.parametrize(("last", "is_clear"), [(1.9, False), (2.0, False), (2.019, False), (2.021, True), (9.0, True)])
def test_a_rise_of_one_percent_counts(last: float, is_clear: bool) -> None:
    assert (rise_of(5, 2.0, 9, last) is not None) == is_clear


def test_unknown_values_count_as_no_rise() -> None:
    assert rise_of(None, None, None, None) is None
    assert rise_of(5, 2.0, 9, None) is None
    assert rise_in([]) is None
    assert rise_in([{"step": 3}]) is None


def test_the_first_lowest_and_the_last_validation_are_read_from_the_log() -> None:
    losses = {1: 4.0, 2: 2.0, 3: 2.0, 4: 5.0, 5: 3.0}
    records = [{"step": step, "loss": loss} for step, loss in losses.items()]
    assert rise_in(records) == rise_of(2, 2.0, 5, 3.0) == Rise(2, 2.0, 5, 3.0)
    assert rise_in(records[:3]) is None


def test_the_limit_of_a_card_names_the_unit_of_the_losses() -> None:
    assert "lowest at step 2 (2.000 nats per tag) and had risen to 3.000" in Rise(2, 2.0, 5, 3.0).limit("nats per tag")


def test_more_of_what_the_run_is_trained_on_helps() -> None:
    assert remedies("").startswith("More text, fewer steps")
    assert remedies("classify") == remedies("").replace("More text", "More examples")
