"""What a page that watches a training run costs: CPU seconds of the server, as a share of the machine's.

    python benchmarks/watching_cost.py runs/filmed     # while it trains, and has a checkpoint

Needs Linux, the extra `serve`, playwright and chromium. The browser's own CPU time is not counted.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"


def cpu_seconds(process: int) -> float:
    """CPU seconds of a process, of all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost(process: int, seconds: float) -> float:
    """CPU seconds that a process uses in `seconds`."""
    began = cpu_seconds(process)
    time.sleep(seconds)
    return cpu_seconds(process) - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    command = [sys.executable, "-m", "acorn", "serve", str(given.run), "--port", "0"]
    lines = (given.run / "metrics.jsonl").read_text().count("\n")
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr
        address = ""
        for line in server.stderr:
            address = address or "".join(re.findall(r"http://[\d.:]+/", line))
            if "is loaded" in line:
                break
        alone = cost(server.pid, given.seconds)
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"{address}#watch")
            page.get_by_role("img", name="Training and validation").wait_for()
            watched = cost(server.pid, given.seconds)
            browser.close()
    finally:
        server.terminate()
        server.wait(60)
    added = (given.run / "metrics.jsonl").read_text().count("\n") - lines
    machine = given.seconds * (os.cpu_count() or 1)
    for name, used in (("no page", alone), ("a page watches", watched)):
        print(f"{name}: {used:.2f} CPU s in {given.seconds:g} s, {100 * used / machine:.2f} % of the machine's")
    print(f"{added} lines were added to metrics.jsonl meanwhile")


if __name__ == "__main__":
    main()
