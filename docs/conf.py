"""How Sphinx builds the site: `make docs` writes it to site/, and a broken link is an error."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from acorn import __version__

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""

project = "acorn"
author = "The acorn authors"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4  # headings are link targets under the names that GitHub gives them
myst_links_external_new_tab = False
highlight_language = "text"  # of indented blocks, which hold commands and what they print

nitpicky = True
# Types of other packages: without their own sites at hand, nothing can tell where they are documented.
nitpick_ignore_regex = [("py:.*", r"(?!acorn\.)[\w.]+")]
# Classes that public names are made from; the page of the Python API documents the public names alone.
nitpick_ignore = [("py:class", f"acorn.{name}") for name in ("model.gpt.GPT", "tokenizer.tokenizer.Tokenizer")]
default_role = "code"  # docstrings write `name` as Markdown does
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
python_maximum_signature_line_length = 88  # longer ones get a line for each parameter

html_theme = "furo"
html_title = f"acorn {__version__}"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]

FILES_OF_PAGES = {name.lower(): f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG", "RELEASING", "SECURITY")}
"""Pages whose text is a file at the top of the repository, where GitHub expects it."""

NOTEBOOK_PAGE = "notebooks/first-model"
"""The page that shows the notebook of the same name."""

LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?=[)#])")
"""The path of a relative link."""


def read_source(app: Sphinx, page: str, source: list[str]) -> None:
    """Gives pages that stand for another file its text, and points links to such files at their pages."""
    own = folder = (Path(app.srcdir) / page).parent
    text = source[0]
    if page in FILES_OF_PAGES:
        text, folder = (ROOT / FILES_OF_PAGES[page]).read_text("utf-8"), ROOT
    elif page == NOTEBOOK_PAGE:
        text += notebook_as_markdown(ROOT / "docs" / f"{page}.ipynb")
    pages = {ROOT / file: Path(app.srcdir) / f"{name}.md" for name, file in FILES_OF_PAGES.items()}

    def moved(link: re.Match[str]) -> str:
        """The link as seen from the page's own folder."""
        target = Path(os.path.normpath(folder / link["path"]))
        return Path(os.path.relpath(pages.get(target, target), own)).as_posix()

    source[0] = LINK.sub(moved, text)


def notebook_as_markdown(path: Path) -> str:
    """The cells of a notebook, those of code as blocks."""
    parts = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            language = "console" if text.startswith(("%", "!")) else "python"
            text = f"```{language}\n{text}\n```"
        elif text.startswith("# "):
            text = text.partition("\n\n")[2]  # the page has a title of its own
        parts.append(text)
    return "\n\n".join(parts) + "\n"


def hide_unknown(app: Sphinx, kind: str, name: str, obj: Any, options: Any, signature: str, result: str) -> Any:
    """Leaves out `**unknown`, which catches misspelled settings and is no parameter to use."""
    shown = re.sub(r", \*\*unknown: [~\w.]+", "", signature or "")
    return None if shown == (signature or "") else (shown, result)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects what is above with Sphinx."""
    app.connect("source-read", read_source)
    app.connect("autodoc-process-signature", hide_unknown)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
