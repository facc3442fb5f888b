from __future__ import annotations

import re

from acorn.report.sections import config_section


def bold(config: dict[str, dict[str, object]]) -> list[str]:
    return re.findall('<dt class="changed"><code>(.*?)</code>', config_section(config))


def test_values_that_acorn_chose_do_not_count_as_changed() -> None:
    """A width of 256 has 4 heads of width 64 by default."""
    chosen = {"device": "cpu", "precision": "bf16", "compile": False, "threads": 2, "micro_batch_size": 4}
    config = {
        "model": {"n_embd": 256, "n_head": 4, "tied": True, "vocab_size": 512},
        "train": {**chosen, "batch_size": 8},
        "parallel": {"strategy": "single"},
    }
    assert bold(config) == ["batch_size"]
    assert bold({"model": {"n_embd": 256, "n_head": 2}, "novel": {"key": 1}}) == ["n_head", "key"]
