"""Notes on the curves: whether validation rose, which tokens it scores, why it may lie below training."""

from __future__ import annotations

from acorn.report.comparability import scored_part
from acorn.report.curves import smoothed
from acorn.report.formats import short
from acorn.report.markup import mapping_in
from acorn.report.rise import remedies, rise_in
from acorn.report.run_facts import RunFacts
from acorn.run_folder import RunFolder


def curve_notes(facts: RunFacts) -> list[str]:
    """Sentences below the loss chart of one run."""
    if not facts.curves.valid:
        return ["This run was not validated during training."]
    return [note for note in (rise_note(facts), _parts(facts), _below(facts)) if note]


def rise_note(facts: RunFacts) -> str:
    """That validation rose again, which weights final/ has, and what helps; empty where it did not clearly rise."""
    rise = rise_in(facts.curves.valid)
    if rise is None:
        return ""
    if not facts.finished:
        return f"{rise.told}. {remedies(facts.task)}"
    if facts.weights_of_step == rise.best_step:
        return f"{rise.told}. final/ has the best weights, of step {rise.best_step:,}."
    best = RunFolder(facts.folder).checkpoint(rise.best_step)
    where = f"; the best are in checkpoints/{best.name}" if best.is_dir() else ""
    return f"{rise.told}. final/ has the last weights{where}. {remedies(facts.task)}"


def _parts(facts: RunFacts) -> str:
    """Which part of the split the curve and the figures are of, unless both are of all of it."""
    in_curve, at_end = scored_part(facts, "valid", in_curve=True), scored_part(facts, "valid")
    if in_curve is None or at_end is None or in_curve[0] == in_curve[1] == at_end[0]:
        return ""
    curve = f"Each validation while training scores {_of(in_curve)} (train.eval_tokens), the same ones every time."
    return (
        f"{curve} The figures of the finished model are of {_of(at_end)}." if facts.evaluation.get("valid") else curve
    )


def _of(part: tuple[int, int]) -> str:
    scored, tokens = part
    return f"all {tokens:,} tokens of the split" if scored == tokens else f"the first {scored:,} of {tokens:,} tokens"


def _below(facts: RunFacts) -> str:
    """Possible reasons, where the last validation loss is below the training loss."""
    train, valid = facts.curves.series("train", "loss"), facts.curves.series("valid", "loss")
    if not len(train) or not len(valid) or valid.y[-1] >= smoothed(train).y[-1]:
        return ""
    reasons = ["the validation text may be easier to predict"]
    part = scored_part(facts, "valid", in_curve=True)
    if part and part[0] < part[1]:
        reasons[0] += ", and only its beginning is scored"
    dropout = mapping_in(facts.config, "model").get("dropout")
    if isinstance(dropout, float) and dropout > 0:
        reasons.append(f"training loss is measured with dropout ({dropout:g}), validation loss without")
    short_context = mapping_in(facts.config, "schedule").get("short_context")
    block_size = mapping_in(facts.config, "model").get("block_size")
    if isinstance(short_context, int) and isinstance(block_size, int) and 0 < short_context < block_size:
        reasons.append(
            f"the first part of training has a context of {short(short_context)} tokens, validation {short(block_size)}"
        )
    reasons.append("each training loss is measured before the update of its step, and the curve averages several")
    overlap = mapping_in(mapping_in(facts.shards, "text"), "overlap").get("valid")
    if isinstance(overlap, float) and overlap > 0:
        reasons.append(f"{100 * overlap:.3g} % of the distinct validation documents are also in training")
    return f"Validation loss ends below training loss. Possible reasons: {'; '.join(reasons)}."
