"""How help is laid out, and what unknown commands and wrong arguments are answered with."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.exceptions import TyperException

from acorn.errors import UsageError
from acorn.value_faults import wanted

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "classify": ("predict", "finetune"),
    "check": ("verify", "data verify"),
    "compare": ("report",),
    "complete": ("generate",),
    "convert": ("export",),
    "eval": ("evaluate",),
    "help": ("--help",),
    "infer": ("generate", "predict"),
    "info": ("report", "plan", "config"),
    "inspect": ("data inspect", "tokenizer inspect", "report"),
    "list": ("presets", "config"),
    "new": ("pretrain",),
    "options": ("config",),
    "prepare": ("data prepare",),
    "repl": ("chat",),
    "resume": ("pretrain",),
    "run": ("pretrain", "generate", "chat"),
    "sample": ("generate",),
    "score": ("evaluate",),
    "settings": ("config",),
    "show": ("report", "tokenizer inspect"),
    "stats": ("report", "plan"),
    "status": ("report", "verify"),
    "summary": ("report", "plan"),
    "talk": ("chat",),
    "test": ("evaluate", "verify"),
    "tokenize": ("tokenizer inspect", "data prepare"),
    "train": ("pretrain", "tokenizer train"),
    "validate": ("evaluate", "verify"),
    "version": ("--version",),
}
"""Name that other programs use -> command of acorn."""

MOST_SUGGESTIONS = 3
"""Largest number of suggestions in one message."""


Function = TypeVar("Function", bound=Callable[..., Any])

VALUES = {
    "<Path>": "PATH",
    "<float range>": "X",
    "<float>": "X",
    "<int range>": "N",
    "<int>": "N",
    "<list[str]>": "",
    "<str>": "NAME",
}
"""typer's name of a type -> what the value is called in help texts; arguments have names of their own."""


EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "finetune": (
        "acorn finetune runs/mine --data mails.csv --out runs/mails",
        "acorn finetune runs/mine --data chats.jsonl --lora 8 --out runs/chat finetune.epochs=2",
        "acorn finetune --resume --out runs/mails",
    ),
    "predict": (
        'acorn predict runs/mails --text "You have won a prize" "See you at noon"',
        "acorn predict runs/mails --input new.csv finetune.text_field=body --json",
    ),
    "chat": (
        "acorn chat runs/chat",
        'acorn chat runs/chat --system "Answer in one word." --save talk.jsonl',
        'echo "Who are you?" | acorn chat runs/chat --greedy',
    ),
}
"""Command -> examples at the end of its help."""


class Verb(TyperCommand):
    """A command whose help has names for values instead of Python types."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [param for param in self.get_params(ctx) if isinstance(param, TyperArgument)]
        return ["[OPTIONS]", *map(_usage_of, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                name = _usage_of(param) if isinstance(param, TyperArgument) else _with_value_names(record[0])
                records[param.param_type_name].append((name, record[1].replace("[x>=", "[at least ")))
        for title, found in (("Arguments", records["argument"]), ("Options", records["option"])):
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)
        if examples := EXAMPLES.get(ctx.info_name):
            with formatter.section("Examples"):
                formatter.write("".join(f"{'':{formatter.current_indent}}{line}\n" for line in examples))  # not wrapped


class Program(typer.Typer):
    """An app whose commands are `Verb`s."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = Verb, **more: Any
    ) -> Callable[[Function], Function]:
        return super().command(name, cls=cls, **more)


def _usage_of(argument: TyperArgument) -> str:
    """An argument in the usage line: `RUN`, `[KEY]` or `[SRC]...`."""
    name = argument.metavar or argument.name.upper()
    if argument.required or name.startswith("[") or " " in name:  # in the form that the usage line needs
        return name
    return f"[{name}]" + ("..." if argument.nargs != 1 else "")


def _with_value_names(text: str) -> str:
    return re.sub("|".join(map(re.escape, VALUES)), lambda found: VALUES[found[0]], text)


class Verbs(TyperGroup):
    """A group of commands that suggests the nearest command for an unknown one, and shows its help without any."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            print(ctx.get_help(), file=sys.stderr)  # with the exit code that typer uses
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            own = ctx.command_path.partition(" ")[2]  # below acorn: empty, or "tokenizer"
            near = [f"`{ctx.command_path} {command}`" for command in nearest_commands(name, self, own)]
            every = ", ".join(self.list_commands(ctx))
            raise UsageError(
                f"No such command {name!r}" + (f"; did you mean {_or(near)}?" if near else "."),
                where=f"{ctx.command_path} {name}",
                fix=f"choose one of {every}; {ctx.command_path} --help explains them",
            )
        return super().resolve_command(ctx, args)


def nearest_commands(name: str, group: TyperGroup, path: str = "") -> list[str]:
    """Commands that `name` may mean, the most likely first; those of subgroups as `data verify`.

    Args:
        path: of the group, below `acorn`.
    """
    commands = dict.fromkeys(_commands(group))
    prefix = f"{path} " if path else ""
    known = [command.removeprefix(prefix) for command in OTHER_NAMES.get(name.lower(), ()) if prefix in f"{command} "]
    found = [command for command in known if command in commands or command.startswith("--")]
    words: dict[str, str] = {}  # a command can be found by its full name and by its last word
    for command in commands:
        for word in (command, command.split()[-1]):
            words.setdefault(word, command)
    near = difflib.get_close_matches(name.lower(), list(words), n=MOST_SUGGESTIONS)
    begun = [command for word, command in words.items() if len(name) > 1 and word.startswith(name.lower())]
    return found or list(dict.fromkeys([*begun, *(words[word] for word in near)]))[:MOST_SUGGESTIONS]


def _commands(group: TyperGroup) -> list[str]:
    """Every command of a group, those of subgroups with their path."""
    names: list[str] = []
    for name, command in group.commands.items():
        names.append(name)
        if isinstance(command, TyperGroup):
            names += [f"{name} {inner}" for inner in _commands(command)]
    return names


def _or(names: list[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return " or ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])


def usage_error(error: TyperException) -> UsageError:
    """typer's message about wrong arguments, in plain words, with the command and a suggestion."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "acorn"
    option = getattr(error, "option_name", None)
    fix = f"see {command} --help"
    if option is None or not hasattr(error, "possibilities"):
        return UsageError(_in_plain_words(error), where=command, fix=fix)
    options = [name for parameter in context.command.params for name in parameter.opts] if context else []
    near = difflib.get_close_matches(option, [name for name in options if name.startswith("--")], n=MOST_SUGGESTIONS)
    if "." in option:
        fix = f"settings are written without dashes: {option.lstrip('-')}=VALUE; {fix}"
    what = f"No such option: {option}" + (f"; did you mean {_or(near)}?" if near else "")
    return UsageError(what, where=command, fix=fix)


def _in_plain_words(error: TyperException) -> str:
    from pydantic import ValidationError

    if isinstance(error.__cause__, ValidationError):
        detail = error.__cause__.errors()[0]
        hint = getattr(getattr(error, "param", None), "get_error_hint", lambda: "The value")()
        return f"{hint.strip(chr(39))} should be {wanted(detail)}, not {detail['input']!r}."
    message = error.format_message()
    if extra := re.fullmatch(r"Got unexpected extra argument\(?s?\)? \((.*)\)", message):
        return f"There are more arguments than this command takes: {extra[1]}"
    return message
