"""kill -9 at random times, signals, a second process: a run must end bit-identical to an uninterrupted one."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from torture.runs import (
    PHASES,
    PRETRAINED,
    Started,
    differences,
    outcome_of,
    prepare_folder,
    run_arguments,
    start,
)
from torture.workers import run_trials

AIMED = ("evaluation", "sampling", "save", "rotation", "final evaluation", "final/", "report")
"""Phases that are targeted, because a kill at a random time rarely hits the short ones."""

SECOND_CTRL_C = 0.02
"""The most seconds between two SIGINTs."""


class Campaign:
    """A reference run of each kind, and trials compared with them.

    Args:
        folder: for everything; emptied.
        kinds: of the trials, which take turns; one may be named twice.
        seed: of the trials' random choices.
    """

    def __init__(self, folder: Path, kinds: tuple[str, ...] = PRETRAINED, seed: int = 0) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.kinds, self.seed = folder, kinds, seed
        # Forked processes must not start their own compilers, and share the compiled code.
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "compiled")
        prepare_folder(folder, kinds)
        self.wanted: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.visits: dict[str, dict[str, int]] = {}
        for kind in dict.fromkeys(kinds):
            for again in range(2 if kind == "compiled" else 1):  # the second uses the compiled code of the first
                out = folder / f"reference-{kind}-{again}"
                run = self._start(kind, out)
                code = run.wait()
                assert code == 0, run.log.read_text()
                self.seconds[kind] = time.monotonic() - run.began
                self.visits[kind] = {phase: run.phase.entered(phase) for phase in PHASES}
                outcome = outcome_of(out)
                assert self.wanted.setdefault(kind, outcome) == outcome

    def kill(self, number: int) -> dict[str, Any]:
        """One run, killed one to five times, resumed after each, compared at its end."""
        draw = random.Random(f"{self.seed}:kill:{number}")
        kind = self._kind(number)
        out = self.folder / "runs" / f"kill-{number:06d}"
        phases: list[str] = []
        kills = draw.choice([1, 1, 2, 3, 5])
        while len(phases) < kills:
            run = self._start(kind, out)
            phase = self._wait_for_a_moment(run, draw, kind, early=len(phases) < kills - 1, share=1 / kills)
            if run.send(signal.SIGKILL):
                run.wait()
            if run.code == -signal.SIGKILL:
                phases.append(phase)
                continue
            assert run.code == 0, run.log.read_text()[-3000:]  # it had already ended
            if phases:
                break
            shutil.rmtree(out)  # it was not killed: try again
        found = self._resume(kind, out)
        return self._compared(number, kind, found, out, {"phases": phases})

    def stop(self, number: int) -> dict[str, Any]:
        """One run, stopped by SIGTERM, SIGINT or two SIGINTs at a random time, resumed, compared at its end."""
        draw = random.Random(f"{self.seed}:stop:{number}")
        kind = self._kind(number)
        out = self.folder / "runs" / f"stop-{number:06d}"
        how = ("SIGTERM", "SIGINT", "SIGINT twice")[number % 3]
        run = self._start(kind, out)
        phase = self._wait_for_a_moment(run, draw, kind)
        number_sent = signal.SIGTERM if how == "SIGTERM" else signal.SIGINT
        sent = run.send(number_sent)
        if how == "SIGINT twice":
            time.sleep(draw.uniform(0, SECOND_CTRL_C))
            run.send(number_sent)
        code = run.wait()
        text = run.log.read_text()
        faults = [] if "Traceback" not in text else ["a traceback"]
        had_ended = code == 0 and "try it  " in text  # the last line that a run prints: Python was exiting
        if sent and code != 128 + number_sent and not had_ended:
            faults.append(f"exit code {code}")
        in_training = phase not in ("text", "final evaluation", "final/", "report")
        saved = "a checkpoint was saved" in text
        if sent and in_training and how != "SIGINT twice":
            faults += _stop_faults(out, text, saved)
        found = self._resume(kind, out)
        # A stop adds a checkpoint that is not on schedule, and rotation then keeps other ones.
        rest = {name: value for name, value in found.items() if name != "checkpoints"}
        wanted = {name: value for name, value in self.wanted[kind].items() if name != "checkpoints"}
        details = {"how": how, "phases": [phase], "saved": saved, "code": code, "faults": faults}
        outcome = self._compared(number, kind, rest, out, details, wanted)
        return outcome

    def meet(self, number: int) -> dict[str, Any]:
        """One run, on whose folder a second process starts, half of them at once, compared at its end.

        The process that comes second is refused and changes nothing.
        """
        draw = random.Random(f"{self.seed}:meet:{number}")
        kind = self._kind(number)
        out = self.folder / "runs" / f"meet-{number:06d}"
        run = self._start(kind, out)
        phase = "text" if draw.random() < 0.5 else self._wait_for_a_moment(run, draw, kind)
        second = self._start(kind, out, out.with_suffix(".second.log"))
        codes = sorted((second.wait(), run.wait()))
        texts = [started.log.read_text() for started in (run, second)]
        # The second may also find that the first has just finished.
        fine = codes == [0, 2] and any("Another run is using this folder" in text for text in texts)
        fine = fine or (codes == [0, 0] and any("already complete" in text for text in texts))
        faults = [] if fine and not any("Traceback" in text for text in texts) else [f"exit codes {codes}", *texts]
        found = outcome_of(out)
        return self._compared(number, kind, found, out, {"phases": [phase], "codes": codes, "faults": faults})

    def _start(self, kind: str, out: Path, log: Path | None = None) -> Started:
        out.parent.mkdir(parents=True, exist_ok=True)
        return start(run_arguments(self.folder, kind, out), log or out.with_suffix(".log"), kind)

    def _kind(self, number: int) -> str:
        return self.kinds[number % len(self.kinds)]

    def _wait_for_a_moment(
        self, run: Started, draw: random.Random, kind: str, early: bool = False, share: float = 1.0
    ) -> str:
        """Waits for a random time, or for a random point in a targeted phase.

        Args:
            early: leave something of the run for the next one: aim at no phase of its end.
        """
        aimed = draw.choice((None, None, *(AIMED[:4] if early else AIMED)))
        end = run.began + draw.uniform(0, 0.95 * self.seconds[kind] * share)
        visit = draw.randint(1, max(1, int(self.visits[kind].get(aimed or "", 1) * share)))
        while run.poll() is None:
            if aimed is None and time.monotonic() >= end:
                break
            if aimed is not None and run.phase.entered(aimed) >= visit:
                time.sleep(draw.choice((0, draw.uniform(0, 0.003), draw.uniform(0, 0.02))))
                break
            if aimed is not None and time.monotonic() > run.began + 3 * self.seconds[kind]:
                break  # a run resumed near its end enters the phase less often
            time.sleep(0.0003)
        return str(run.phase)

    def _resume(self, kind: str, out: Path) -> dict[str, Any]:
        run = self._start(kind, out)
        code = run.wait()
        assert code == 0, f"exit code {code}: {run.log.read_text()[-3000:]}"
        return outcome_of(out)

    def _compared(
        self,
        number: int,
        kind: str,
        found: dict[str, Any],
        out: Path,
        details: dict[str, Any],
        wanted: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        different = differences(found, wanted or self.wanted[kind])
        text = out.with_suffix(".log").read_text()
        if "Traceback" in text:
            different.append("a traceback")
        equal = not different and not details.get("faults")
        if equal:
            shutil.rmtree(out)
            out.with_suffix(".log").unlink()
        return {"number": number, "kind": kind, "equal": equal, "different": different, **details}


def _stop_faults(out: Path, text: str, saved: bool) -> list[str]:
    """A graceful stop reports the step that it saved, whose checkpoint exists and is intact."""
    from acorn.checkpoint.integrity import checkpoint_faults
    from acorn.run_folder import RunFolder

    if not saved:
        return ["no checkpoint was saved"]
    step = int(text.rpartition("Stopped at step ")[2].split(";")[0].replace(",", ""))
    return checkpoint_faults(RunFolder(out).checkpoint(step))


def kills(folder: Path, trials: int, kinds: tuple[str, ...] = PRETRAINED, seed: int = 0) -> dict[str, Any]:
    """`trials` runs that are killed. `equal` of them are bit-identical to the uninterrupted run of their kind."""
    return _killed(Campaign(folder, kinds, seed), trials)


def signals(folder: Path, trials: int, kinds: tuple[str, ...] = PRETRAINED, seed: int = 0) -> dict[str, Any]:
    """`trials` runs that are stopped by signals."""
    return _stopped(Campaign(folder, kinds, seed), trials)


def kills_and_signals(
    folder: Path, killed: int, stopped: int, kinds: tuple[str, ...] = PRETRAINED, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both with the same reference runs: `killed` runs that are killed, `stopped` ones that are stopped by signals."""
    campaign = Campaign(folder, kinds, seed)
    return _killed(campaign, killed), _stopped(campaign, stopped)


def meetings(folder: Path, trials: int, kinds: tuple[str, ...] = PRETRAINED, seed: int = 0) -> dict[str, Any]:
    """`trials` runs on whose folder a second process starts."""
    campaign = Campaign(folder, kinds, seed)
    outcomes = run_trials(campaign.meet, list(range(trials)), folder / "outcomes-meet", "two processes")
    refused = sum(2 in outcome.get("codes", ()) for outcome in outcomes)
    return {**_summary(outcomes), "refused": refused}


def _killed(campaign: Campaign, trials: int) -> dict[str, Any]:
    outcomes = run_trials(campaign.kill, list(range(trials)), campaign.folder / "outcomes-kill", "kill -9")
    return _summary(outcomes)


def _stopped(campaign: Campaign, trials: int) -> dict[str, Any]:
    outcomes = run_trials(campaign.stop, list(range(trials)), campaign.folder / "outcomes-stop", "signals")
    return {**_summary(outcomes), "saved": sum(bool(outcome.get("saved")) for outcome in outcomes)}


def _summary(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "trials": len(outcomes),
        "equal": sum(outcome.get("equal", False) for outcome in outcomes),
        "by_kind": dict(Counter(outcome.get("kind", "error") for outcome in outcomes)),
        "by_times": dict(Counter(str(len(outcome.get("phases", ()))) for outcome in outcomes)),
        "killed": sum(len(outcome.get("phases", ())) for outcome in outcomes),
        "by_phase": dict(Counter(phase for outcome in outcomes for phase in outcome.get("phases", ()))),
        "failed": [outcome for outcome in outcomes if not outcome.get("equal")],
    }


def main() -> None:
    """`python -m torture.kills kill|stop|meet FOLDER TRIALS KIND...`: prints the summary as JSON."""
    import sys

    from torture.runs import import_everything

    what, folder, trials, *kinds = sys.argv[1:]
    import_everything()
    campaign = {"kill": kills, "stop": signals, "meet": meetings}[what]
    print(json.dumps(campaign(Path(folder), int(trials), tuple(kinds) or PRETRAINED)))


if __name__ == "__main__":
    main()
