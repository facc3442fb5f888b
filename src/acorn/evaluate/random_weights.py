"""The baseline that is a run of its own: the same network, trained on the same examples from random weights.

It is a whole run inside the folder of the run that it is compared with (`RunFolder.baseline`).
"""

from __future__ import annotations

from typing import Any

from acorn.errors import DamageError
from acorn.figure_names import TASK_FIGURES
from acorn.files import read_sealed_json
from acorn.run_folder import RunFolder

RANDOM_WEIGHTS = "random_weights"
"""Its name among the baselines of a side."""


def random_weights_figures(run: RunFolder, steps: int) -> dict[str, dict[str, Any]]:
    """Held-out side -> figures of the baseline of `run`; empty if there is none, or it is not finished.

    Args:
        steps: the length of `run`, which the baseline must have; 0: its length is set in minutes.
    """
    if not run.baseline.is_dir():
        return {}
    try:
        evaluation = read_sealed_json(RunFolder(run.baseline).evaluation)
    except DamageError:
        return {}
    if steps not in (0, evaluation.get("step")):  # of an earlier, shorter run
        return {}
    return {
        side: {name: figures[name] for name in TASK_FIGURES if name in figures}
        for side, figures in evaluation.items()
        if isinstance(figures, dict)
    }
