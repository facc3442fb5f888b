"""The setup of a run: fixed before its first step, unchanged until its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from acorn.config import Config
from acorn.run_folder import RunFolder
from acorn.runtime.device import Runtime


@dataclass(frozen=True)
class Setup:
    """The folder, config and runtime of a run.

    Attributes:
        command: the command that resumes the run, as it is written in a shell.
        config: with every `auto` resolved.
        resolved: the values that `auto` settings were resolved to on this machine; stored in every checkpoint.
        peak_flops: peak FLOP/s of the machine's matmuls, for the model FLOPs utilization (MFU).
        exceeded: is called with a measured FLOP/s above the peak; returns the peak to use from then on.
    """

    run: RunFolder
    config: Config
    runtime: Runtime
    resolved: dict[str, Any]
    command: str
    peak_flops: float
    exceeded: Callable[[float], float] = float
