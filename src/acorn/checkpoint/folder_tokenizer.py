"""Reads what a model folder says of its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acorn.checkpoint.layouts import GPT2, Layout
from acorn.checkpoint.tensor_files import RESTORE
from acorn.errors import DamageError, InputError
from acorn.files import read_json
from acorn.run_folder import TOKENIZER
from acorn.tokenizer.tokenizer import SEPARATORS, NoTokenizerError, Tokenizer, gpt2_tokenizer

TOKENIZER_CONFIG, CHAT_TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
GPT2_TOKENIZER = ("vocab.json", "merges.txt")
OTHER_TOKENIZERS = ("tokenizer.model", *GPT2_TOKENIZER, "spiece.model", "vocab.txt")


_USE_TRANSFORMERS = "use it with the transformers library instead"


def read_tokenizer(path: Path, layout: Layout) -> Tokenizer:
    """The tokenizer of a model folder. Prompts begin as with transformers' AutoTokenizer.

    Raises:
        InputError: acorn does not support it.
        DamageError: it is missing or cannot be read.
    """
    try:
        tokenizer = _tokenizer_in(path, layout)
    except NoTokenizerError as error:
        raise DamageError(error.what, where=error.where, fix=RESTORE) from None
    except InputError as error:
        raise InputError(error.what, where=error.where or str(path), fix=_USE_TRANSFORMERS) from None
    separator = _declared_separator(path)
    if separator in SEPARATORS and separator != tokenizer.separator:
        raise InputError(
            f"The model ends texts with {separator}, but its vocabulary also has {tokenizer.separator}, which acorn "
            "would use instead.",
            where=str(path / TOKENIZER_CONFIG),
            fix=_USE_TRANSFORMERS,
        )
    return tokenizer


def _tokenizer_in(path: Path, layout: Layout) -> Tokenizer:
    """The tokenizer in the files of a model folder; tokenizer_config.json is not considered."""
    if (path / TOKENIZER).is_file():
        return Tokenizer.from_file(path / TOKENIZER, as_it_is=True)
    others = [name for name in OTHER_TOKENIZERS if (path / name).is_file()]
    if layout is GPT2 and set(GPT2_TOKENIZER) <= set(others):
        return gpt2_tokenizer(*(path / name for name in GPT2_TOKENIZER))
    raise DamageError(
        f"{TOKENIZER} is missing." + (f" acorn cannot use {' and '.join(others)} without it." if others else ""),
        where=str(path),
        fix="download it, or create it: in Python, with the folder's path as P, "
        "transformers.AutoTokenizer.from_pretrained(P).save_pretrained(P)"
        if others
        else RESTORE,
    )


def _declared_separator(path: Path) -> object:
    """The end-of-text token in tokenizer_config.json; None if there is none."""
    token = _tokenizer_config(path).get("eos_token")
    return token.get("content") if isinstance(token, dict) else token


def _tokenizer_config(path: Path) -> dict[str, Any]:
    """The content of tokenizer_config.json; empty if there is none."""
    values = read_json(path / TOKENIZER_CONFIG, RESTORE) if (path / TOKENIZER_CONFIG).is_file() else {}
    return values if isinstance(values, dict) else {}


def read_chat_template(path: Path) -> str:
    """The Jinja template that turns a conversation into text; empty if the model has none.

    Raises:
        DamageError: a file that could contain it cannot be read.
    """
    if (path / CHAT_TEMPLATE).is_file():
        try:
            return (path / CHAT_TEMPLATE).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise DamageError(
                f"{CHAT_TEMPLATE} is not UTF-8 text.", where=str(path / CHAT_TEMPLATE), fix=RESTORE
            ) from None
    template = _tokenizer_config(path).get("chat_template")
    return template if isinstance(template, str) else ""
