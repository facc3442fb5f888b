"""Names inside a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from acorn.run_folder import RunFolder, step_of


@pytest.mark.parametrize(
    ("name", "exact", "begins"),
    [
        ("step-00000012", 12, 12),
        ("step-123456789", 123456789, 123456789),
        ("step-00000012.old", None, 12),
        ("step-00000012-copy", None, 12),
        ("step-0000012", None, None),
        ("removed-step-00000012", None, None),
        ("best.json", None, None),
    ],
)
def test_a_step_is_read_from_the_name_of_its_folder(name: str, exact: int | None, begins: int | None) -> None:
    assert (step_of(name), step_of(name, exact=False)) == (exact, begins)


def test_steps_are_found_under_the_names_they_are_saved_under(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (7, 10**8, 12):
        assert step_of(run.checkpoint(step).name) == step
        run.checkpoint(step).mkdir(parents=True)
    (run.checkpoints / "step-00000003.new").mkdir()
    run.checkpoint(5).write_text("a file")
    assert run.checkpoint_steps() == [7, 12, 10**8]
