"""The end of a run: model folder, evaluation, loss curve and report. Each can be recreated from the run folder."""

from __future__ import annotations

from collections.abc import Callable

from acorn.checkpoint.integrity import model_faults
from acorn.checkpoint.training_state import Counters, read_checkpoint, restore
from acorn.errors import DamageError
from acorn.files import disk_errors, read_sealed_json, sync_folder, write_sealed_json
from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.report.html import write_report
from acorn.report.plots import write_loss_picture
from acorn.report.rise import Rise, remedies, rise_of
from acorn.report.task_figures import LOSS_UNITS, TEXT_LOSS_UNIT
from acorn.run.ending import Ending
from acorn.run_folder import RunFolder
from acorn.train.setup import Setup


def finish_run(setup: Setup, model: GPT, ending: Ending, counters: Counters, progress: Progress) -> None:
    """Scores the model and writes, in this order, what `ending` writes, evaluation.json, loss.png and report.html.

    evaluation.json names the step: a run killed before the end counts as unfinished, and resuming gives equal results.
    """
    run, config, step = setup.run, setup.config, counters.step
    rise = rise_of(counters.best_step, counters.best_loss, counters.valid_step, counters.valid_loss)
    if config.checkpoint.final == "last":
        _note_a_rise(run, rise, config.finetune.task, progress)
    elif counters.best_step not in (None, step):
        best = run.checkpoint(counters.best_step or step)
        if best.is_dir():
            step = counters.best_step or step
            restore(model, [], read_checkpoint(best, weights_only=True))
        else:  # resumed from before a damaged checkpoint; its best one had been removed
            progress.note(
                f"The best checkpoint, {best.name}, is missing: final/ has the last weights, of step {step:,}."
            )
    evaluation = ending.evaluate(model, progress)
    limits = []
    if rise and step == counters.step:
        limits = [rise.limit(LOSS_UNITS.get(config.finetune.task, TEXT_LOSS_UNIT))]
    ending.write(run, model, evaluation, step, limits)
    with disk_errors(run.root):
        for page in (run.loss_picture, run.report):
            page.unlink(missing_ok=True)  # from an earlier end of this run: `is_finished` checks that they exist
        sync_folder(run.root)
    write_sealed_json(run.evaluation, {"step": counters.step, "weights_of_step": step, **evaluation})
    write_loss_picture(run.root)
    write_report(run.root)


def _note_a_rise(run: RunFolder, rise: Rise | None, task: str, progress: Progress) -> None:
    """Notes where the best weights are, if they are clearly better than the last ones."""
    if rise:
        best = run.checkpoint(rise.best_step)
        progress.note(f"{rise.told}. final/ has the last weights; the best are in {best}. {remedies(task)}")


def is_finished(run: RunFolder, step: int, missing: Callable[[RunFolder], list[str]]) -> bool:
    """Whether the run ended at `step` with everything written.

    Args:
        missing: `Ending.missing` of this kind of run, which needs no ending that is set up.
    """
    try:
        written = read_sealed_json(run.evaluation).get("step")
    except DamageError:
        return False
    pages = run.loss_picture.exists() and run.report.exists()
    return written == step and pages and not missing(run) and not model_faults(run.final)
