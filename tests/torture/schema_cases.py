"""Requests that schemathesis makes from the server's own description."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from torture.served import start_server, tiny_model

CASES_OF_AN_EXAMPLE = 20
"""Each example of `--max-examples` makes at least as many cases: there are a dozen operations and several phases."""

NOT_CHECKED = "positive_data_acceptance"
"""That a prompt with its new tokens fits the context cannot be said in a schema, so a request that follows it may get
400."""


def schema_cases(folder: Path, cases: int, seed: int = 0) -> dict[str, Any]:
    """All phases, valid and invalid data: no server error, no undocumented status, nothing invalid accepted."""
    key = folder / "key"
    model = tiny_model(folder / "model", block_size=64)
    key.write_text("a-key-of-tests")
    server = start_server(model, folder / "server.log", "--api-key-file", str(key))
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/openapi.json"]
    command += ["-H", "Authorization: Bearer a-key-of-tests", "--mode", "all", "--checks", "all", "--no-shrink"]
    command += ["--exclude-checks", NOT_CHECKED, "--max-examples", str(-(-cases // CASES_OF_AN_EXAMPLE))]
    command += ["--seed", str(seed + 1), "--no-color"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    code = server.stop()
    made = re.search(r"([\d,]+) generated", done.stdout)
    number = int(made[1].replace(",", "")) if made else 0
    broken: list[dict[str, Any]] = []
    if done.returncode or number < cases:
        broken.append({"cases": number, "output": done.stdout[-20_000:], "errors": done.stderr[-2000:]})
    if code != 143:
        broken.append({"exit code": code})
    return {"trials": number, "code": code, "broken": broken}
