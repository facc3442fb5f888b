"""What is settled about a run before its first step, and stays as it is until the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from acorn.config import Config
from acorn.run_folder import RunFolder
from acorn.runtime.device import Runtime


@dataclass(frozen=True)
class Setup:
    """Where a run is, what it does, and on which machine.

    Attributes:
        config: without any `auto`.
        resolved: what the machine's `auto` settings came to; stored in every checkpoint.
        peak_flops: FLOP/s of the machine's matmuls, for the share of it that training reaches.
        exceeded: gives the peak to go by from now on, where training reached so many FLOP/s, which is more.
    """

    run: RunFolder
    config: Config
    runtime: Runtime
    resolved: dict[str, Any]
    peak_flops: float
    exceeded: Callable[[float], float] = float
