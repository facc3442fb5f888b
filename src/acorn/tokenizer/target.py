"""Which existing files a new tokenizer may replace."""

from __future__ import annotations

from pathlib import Path

import tokenizers

from acorn.errors import UsageError
from acorn.files import check_links

LARGEST_TOKENIZER_BYTES = 2**30
"""A larger file is not read to check whether it is a tokenizer. One with 16 million entries is about half as large."""


def check_target(path: Path, where: str) -> None:
    """Refuses an existing target unless it is a tokenizer or an empty file, so that no other file is lost.

    Args:
        where: the option or argument that named it, for the message.

    Raises:
        UsageError: there is such a target, or its path leads through a broken symbolic link.
    """
    check_links(path, where)
    if path.exists() and not _is_replaceable(path):
        raise UsageError(
            f"{path} exists and is {'a folder' if path.is_dir() else 'not a tokenizer'}; acorn does not replace it.",
            where=where,
            fix=f"name another file{' with --out' if where == '--out' else ', such as tokenizer.json'}",
        )


def _is_replaceable(path: Path) -> bool:
    """Whether `path` is an empty file, or a tokenizer.json that the library can read, also if acorn cannot use it."""
    if not path.is_file() or path.stat().st_size > LARGEST_TOKENIZER_BYTES:
        return False
    try:
        content = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return False
    if not content:
        return True
    try:
        tokenizers.Tokenizer.from_str(content)
    except Exception:  # the library raises nothing more specific
        return False
    return True
