"""Checks that this checkout is ready to be released: version, changelog, citation, and no placeholder left.

The workflow that publishes a release runs it with the tag; RELEASING.md says when to run it by hand. It needs no other
package, so that it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", help="the tag that is being released, such as v0.1.0")
    found = problems(ROOT, parser.parse_args().tag)
    if found:
        sys.exit("Not ready for a release:\n" + "\n".join(f"- {problem}" for problem in found))
    print(f"ready for release: {version_of(ROOT)}")


def problems(root: Path, tag: str | None) -> list[str]:
    """What keeps the checkout in `root` from being released, one sentence each; `tag` is None before there is one."""
    version = version_of(root)
    found = []
    if tag is not None and tag != f"v{version}":
        found.append(f"The tag is {tag}, but src/acorn/__init__.py has version {version}: tag v{version}.")
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    heading, _, entries = changelog.partition("\n## ")[2].partition("\n## ")[0].partition("\n")
    dated = re.fullmatch(rf"\[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)", heading)
    if dated is None:
        found.append(f"The first heading of CHANGELOG.md is [{version}] with a date: ## [{version}] - YYYY-MM-DD.")
    elif "\n- " not in entries:
        found.append(f"CHANGELOG.md lists nothing under {version}.")
    citation = (root / "CITATION.cff").read_text("utf-8")
    if not re.search(rf'^version: "?{re.escape(version)}"?$', citation, re.M):
        found.append(f"CITATION.cff has another version: version: {version}.")
    if dated and not re.search(rf'^date-released: "?{dated.group(1)}"?$', citation, re.M):
        found.append(f"CITATION.cff has another date than CHANGELOG.md: date-released: {dated.group(1)}.")
    for placeholder, files in placeholders(root).items():
        left = [file for file in files if placeholder in (root / file).read_text("utf-8")]
        if left:
            found.append(f"{placeholder} has to be filled in (see RELEASING.md): {', '.join(left)}.")
    return found


def version_of(root: Path) -> str:
    """The version of acorn in `root`, as the package states it."""
    found = re.search(r'^__version__ = "([^"]+)"$', (root / "src/acorn/__init__.py").read_text("utf-8"), re.M)
    if not found:
        sys.exit('src/acorn/__init__.py has no line of the form: __version__ = "0.1.0"')
    return found.group(1)


def placeholders(root: Path) -> dict[str, list[str]]:
    """Placeholder -> the files that hold it, as the table in RELEASING.md lists them."""
    rows = re.findall(r"^ *\| `([A-Z-]+)` \| [^|]+ \| ([^|]+) \|$", (root / "RELEASING.md").read_text("utf-8"), re.M)
    return {placeholder: re.findall(r"`([^`]+)`", files) for placeholder, files in rows}


if __name__ == "__main__":
    main()
