"""Wrong commands and options are answered with a suggestion."""

from __future__ import annotations

import re

import pytest
import typer
from typer.core import TyperGroup

from acorn.cli.app import app
from acorn.cli.usage import EXAMPLES, OTHER_NAMES, nearest_commands
from acorn.text import text_files


@pytest.fixture
def verbs() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def refused(done, *parts: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("info", ("'info'; did you mean `acorn report`, `acorn plan` or `acorn config`?",)),
        ("generat run", ("did you mean `acorn generate`?",)),
        ("gen run", ("did you mean `acorn generate`?",)),
        ("EVALUATE run", ("did you mean `acorn evaluate`?",)),
        ("train x.txt", ("`acorn pretrain` or `acorn tokenizer train`?",)),
        ("prepare x.txt", ("did you mean `acorn data prepare`?",)),
        ("version", ("did you mean `acorn --version`?",)),
        ("xyzzy", ("No such command 'xyzzy'.", "choose one of demo, pretrain", "acorn --help")),
        ("tokenizer tran", ("did you mean `acorn tokenizer train`?",)),
        ("tokenizer show", ("did you mean `acorn tokenizer inspect`?",)),
        ("data check", ("did you mean `acorn data verify`?", "acorn data --help")),
        ("data xyzzy", ("No such command 'xyzzy'.", "choose one of prepare, merge, verify, inspect;")),
    ],
)
def test_a_wrong_command_is_answered_with_a_suggestion(acorn, line: str, parts: tuple[str, ...]) -> None:
    refused(acorn(*line.split()), "fix: ", *parts)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("generate run --tempreature 1", ("--tempreature; did you mean --temperature?", "where: acorn generate")),
        ("generate run --max_new_tokens 1", ("did you mean --max-new-tokens?",)),
        ("tokenizer train --vocab 3", ("did you mean --vocab-size?", "acorn tokenizer train --help")),
        ("generate run --xyzzy", ("No such option: --xyzzy\n", "acorn generate --help")),
        ("pretrain small --train.steps 5", ("settings are written without dashes: train.steps=VALUE",)),
        ("generate", ("Missing argument 'RUN'", "acorn generate --help")),
        ("generate run --top-k x", ("--top-k", "acorn generate --help")),
    ],
)
def test_a_wrong_option_or_argument_is_answered_with_a_suggestion(acorn, line: str, parts: tuple[str, ...]) -> None:
    refused(acorn(*line.split()), *parts)


def test_a_command_without_one_letter_suggests_the_command(verbs: TyperGroup) -> None:
    for name in verbs.commands:
        if name[:-1] in OTHER_NAMES:  # `tokenize`
            continue
        assert nearest_commands(name[:-1], verbs)[0] == name


def test_commands_of_other_programs_suggest_commands_that_exist(verbs: TyperGroup) -> None:
    for name, wanted in OTHER_NAMES.items():
        assert nearest_commands(name, verbs) == list(wanted)


@pytest.mark.parametrize("line", ["", "data", "tokenizer"])
def test_without_a_command_plain_help_is_shown(acorn, line: str) -> None:
    done = acorn(*line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == acorn(*line.split(), "--help").stdout


@pytest.mark.parametrize("line", ["", "data", "tokenizer"])
def test_the_list_of_commands_is_not_cut(acorn, line: str) -> None:
    commands = acorn(*line.split(), "--help").stdout.partition("Commands:\n")[2].splitlines()
    assert len(commands) >= 2
    for command in commands:
        assert command.endswith(".")
        assert not command.endswith("...")
        assert len(command) <= 80


def _leaves(group: TyperGroup, path: str = "acorn") -> list[tuple[str, typer.core.TyperCommand]]:
    found = []
    for name, command in group.commands.items():
        is_group = isinstance(command, TyperGroup)
        found += _leaves(command, f"{path} {name}") if is_group else [(f"{path} {name}", command)]
    return found


def test_help_has_no_types_and_no_nested_brackets(verbs: TyperGroup) -> None:
    for path, command in _leaves(verbs):
        context = command.make_context(path, [], resilient_parsing=True)
        usage, text = command.get_usage(context), command.get_help(context)
        assert not re.search(r"[{}]|\[\[|\]\.\.\.\]", usage), usage
        assert not re.search(r"<(str|int|float|Path|list|bool)", text), path


@pytest.mark.parametrize("verb", EXAMPLES)
def test_examples_stand_at_the_end_of_the_help(acorn, verb: str) -> None:
    """One on each line, so that it can be copied. tests/test_docs.py tries them in docs/commands.md."""
    shown = acorn(verb, "--help").stdout.partition("Examples:\n")[2]
    assert [line.strip() for line in shown.splitlines()] == list(EXAMPLES[verb])


def test_the_help_of_finetune_names_every_ending_of_rows(acorn) -> None:
    told = acorn("finetune", "--help").stdout
    for ending in text_files.EXAMPLES.forms:
        table, dot, compression = ending.rpartition(".")
        assert f"{dot}{compression}" in told
        assert table in told


def test_wrong_values_of_options_are_told_in_plain_words(acorn) -> None:
    refused(acorn("generate", "run", "--top-k", "x"), "--top-k should be a whole number, not 'x'.")
    refused(acorn("generate", "run", "--top-p", "x"), "--top-p should be a number, not 'x'.")
    refused(acorn("evaluate", "run", "--limit", "0"), "--limit should be at least 1, not '0'.")
    refused(acorn("verify", "a", "b", "c"), "There are more arguments than this command takes: b c")
