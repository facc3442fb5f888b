"""environment.json as readable text."""

from __future__ import annotations

import re

from acorn.report.environment_section import environment_section


def facts(environment: dict[str, object]) -> dict[str, str]:
    pairs = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", environment_section(environment))
    return dict(pairs)


def test_a_peak_is_a_rate_in_teraflops() -> None:
    peak = {"flops_per_second": 284_346_772_763.0, "of": "matmuls of 2,048 x 2,048 in bf16 on 2 threads"}
    told = "0.284 TFLOP/s (matmuls of 2,048 x 2,048 in bf16 on 2 threads)"
    assert facts({"peak": peak}) == {"Peak of the machine": told}


def test_windows_name_a_process_only_if_there_are_several() -> None:
    assert facts({"windows_per_rank": {"0": 9789}}) == {"Training windows": "9,789"}
    several = facts({"windows_per_rank": {"0": 9789, "1": 20}})
    assert several == {"Training windows": "process 0: 9,789<br>process 1: 20"}


def test_a_changed_checkout_is_marked_and_a_missing_one_left_out() -> None:
    assert facts({"git_revision": "abc+"}) == {"Git commit of that repository": "abc (with uncommitted changes)"}
    assert facts({"git_revision": None, "git_folder": None, "threads": 2}) == {"CPU threads": "2"}
    assert "no environment.json" in environment_section({})


def test_unknown_fields_and_shapes_are_shown_too() -> None:
    odd = {"peak": "fast", "versions": 3, "windows_per_rank": 4, "acorn_commit": 5, "novel_field": "x"}
    assert list(facts(odd).values()) == ["fast", "4", "3", "5", "x"]
    assert facts(odd)["Novel field"] == "x"
