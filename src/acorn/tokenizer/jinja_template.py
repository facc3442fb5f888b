"""A model's chat template: Jinja source that somebody else wrote, run in Jinja's sandbox within bounds.

It gets the same variables, filters and functions as in transformers, so that it renders the same text. The sandbox
denies it Python's internals, files and the network. Loop iterations and text length are limited, so that it ends.
Memory is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from acorn.errors import AcornError, InputError

MAX_STEPS = 1 << 16
"""Loop iterations and calls of macros in one rendering."""

MAX_CHARACTERS = 1 << 24
"""Of one rendering, and of a text or list that a template repeats with `*`."""

MAX_BITS = 1 << 12
"""Of an integer that a template makes by multiplying."""

Span = tuple[int, int]


@dataclass
class _Rendering:
    """The state of one rendering."""

    pieces: list[str] = field(default_factory=list)
    length: int = 0
    steps: int = 0
    spans: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Rendered:
    """The text of a conversation.

    Attributes:
        answers: the characters [begin, end) within `{% generation %}`, in order; None where the template does not have
            that tag, or has it in a place (such as a macro) from which it cannot be followed.
    """

    text: str
    answers: list[Span] | None


class JinjaTemplate:
    """A compiled template. One may be used by several threads.

    Args:
        source: the template.
        special_tokens: what the template may call by name, such as `bos_token`.
        now: what it gets as the current time.
        where: the file it is from, for messages.

    Raises:
        InputError: it is not a template that Jinja can compile.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], now: datetime, where: str) -> None:
        self._environment = _Environment(now)
        self._special_tokens = dict(special_tokens)
        self._where = where
        with self._errors():
            tree = self._environment.parse(source)
            self._has_tag = any(_is_tag(block) for block in tree.find_all(nodes.CallBlock))
            _Counting().visit(tree)
            code = self._environment.compile(tree)
            self._template = jinja2.Template.from_code(self._environment, code, self._environment.make_globals(None))

    def render(self, messages: Sequence[Mapping[str, str]], *, to_answer: bool = False) -> Rendered:
        """The text of a conversation.

        Args:
            messages: role and content of each.
            to_answer: what begins an answer follows, if the template has such a thing.

        Raises:
            InputError: the template refuses the conversation, fails at it, or goes beyond its bounds.
        """
        rendering = _Rendering()
        with self._errors(), self._environment.watching(rendering):
            pieces = self._template.generate(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=to_answer,
                **self._special_tokens,
            )
            for piece in pieces:
                rendering.pieces.append(piece)
                rendering.length += len(piece)
                _check_size(rendering.length)
        text = "".join(rendering.pieces)
        answers = [(begin, begin + len(answer)) for begin, answer in rendering.spans]
        is_true = all(text[begin:end] == rendering.spans[n][1] for n, (begin, end) in enumerate(answers))
        return Rendered(text, answers if self._has_tag and is_true else None)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns every error of a template into an InputError."""
        try:
            yield
        except AcornError:
            raise
        except jinja2.TemplateSyntaxError as error:
            raise self._error(f"cannot be read: {error.message}", f", line {error.lineno}") from None
        except _RefusedError as error:
            raise self._error(f"does not take this conversation: {error}", fix=_CONVERSATION) from None
        except jinja2.exceptions.SecurityError as error:
            raise self._error(f"uses something that the sandbox forbids: {error}") from None
        except RecursionError:
            raise self._error("calls itself without end (infinite recursion)") from None
        except MemoryError:
            raise self._error("needs more memory than is available") from None
        except Exception as error:  # of any kind: the template is a program
            raise self._error(f"fails: {error}", fix=f"{_CONVERSATION}; or {_TEMPLATE}") from None

    def _error(self, what: str, place: str = "", fix: str = "") -> InputError:
        return InputError(f"The chat template {what.rstrip('.')}.", where=self._where + place, fix=fix or _TEMPLATE)


_TEMPLATE = "get the model's template anew from its source, or use another model"
_CONVERSATION = "change the conversation: roles, their order, or what is missing"


class _RefusedError(Exception):
    """The template called `raise_exception`."""


class _BoundsError(jinja2.exceptions.SecurityError):
    """More steps or characters than a rendering may have."""


class _GenerationTag(Extension):
    """`{% generation %}`: what is between it and `{% endgeneration %}` is written by the model."""

    tags = {"generation"}  # noqa: RUF012 (declared so by Jinja)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("note_answer"), [], [], body, lineno=line)

    def note_answer(self, caller: Any) -> str:
        answer = str(caller())
        environment = self.environment
        assert isinstance(environment, _Environment)
        rendering = environment.rendering.get()
        rendering.spans.append((rendering.length, answer))
        return answer


class _Counting(NodeTransformer):
    """Inserts a call of `_Environment.step` into every loop and every macro."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._counted(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._counted(node)

    def _counted(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        call = nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None)
        node.body.insert(0, nodes.ExprStmt(call, lineno=node.lineno))
        return node


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with the settings, filters and functions of transformers."""

    intercepted_binops = frozenset(["*", "**"])

    def __init__(self, now: datetime) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, LoopControlExtension])
        self.rendering: ContextVar[_Rendering] = ContextVar("rendering")
        self.filters["tojson"] = _to_json
        del self.globals["lipsum"]  # generates text of any length
        self.globals.update(raise_exception=_refuse, strftime_now=now.strftime, namespace=_PlainNamespace, dict=_Dict())

    @contextmanager
    def watching(self, rendering: _Rendering) -> Iterator[None]:
        """Within it, renderings of this thread are counted in `rendering`."""
        token = self.rendering.set(rendering)
        try:
            yield
        finally:
            self.rendering.reset(token)

    def step(self) -> str:
        rendering = self.rendering.get()
        rendering.steps += 1
        if rendering.steps > MAX_STEPS:
            raise _BoundsError(f"more than {MAX_STEPS:,} loop iterations for one conversation")
        return ""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MAX_BITS:
                raise _BoundsError(f"a number of more than {MAX_BITS:,} bits")
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if hasattr(one, "__len__") and isinstance(other, int):
                    _check_size(len(one) * other)
        return super().call_binop(context, operator, left, right)


class _PlainNamespace(Namespace):
    """Jinja's namespace without names that begin with an underscore, which lead into Python's internals."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *rest = args
        for name in dict(*rest, **values):
            _check_name(name)
        Namespace.__init__(self, *rest, **values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class _Dict:
    """`dict` for templates, in place of Python's class, which has more than they should use."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


def _is_tag(block: nodes.CallBlock) -> bool:
    called = block.call.node
    return isinstance(called, nodes.ExtensionAttribute) and called.identifier == _GenerationTag.identifier


def _check_size(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise _BoundsError(f"a text of more than {MAX_CHARACTERS:,} characters")


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a name in a namespace begins with an underscore: {name!r}")


def _refuse(message: object) -> NoReturn:
    raise _RefusedError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes what HTML would read as markup."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
