"""What templates get and render is what transformers gives and renders; and what they cannot do."""

from __future__ import annotations

import re
import threading
from datetime import datetime

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from acorn.errors import InputError
from acorn.tokenizer.jinja_template import MAX_CHARACTERS, JinjaTemplate

MESSAGES = [{"role": "user", "content": 'Hi <b> "é" '}, {"role": "assistant", "content": "Ho"}]
NAMES = {"bos_token": "<s>"}


def made(source: str) -> JinjaTemplate:
    return JinjaTemplate(source, NAMES, datetime(2026, 2, 3, 4, 5), "chat_template.jinja")


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}\n  {% if loop.last %}\n{{ m.role }}: {{ m.content }}\n  {% endif %}\n{% endfor %}\n",
        "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.role }}{% continue %}{% endfor %}",
        "{% macro turn(m) %}[{{ m.role }}]{% endmacro %}{% for m in messages %}{{ turn(m) ~ '!' }}{% endfor %}",
        "{% if tools %}a{% endif %}{% if tools is not none %}b{% endif %}{{ bos_token }}{{ eos_token }}|",
        "{{ tools is defined }}{{ documents is none }}{{ unknown is defined }}{{ add_generation_prompt }}",
        "{{ dict(a=1)['a'] }}{{ dict.fromkeys(['x'], 2)['x'] }}{{ 2 ** 8 }}{{ 'ab' * 3 }}{{ 3 * 4 }}{{ [1] * 2 }}",
        "{% for m in messages recursive %}{{ m.content.split(' ')[0] }}{{ m.get('name', '-') }}{% endfor %}",
        "a{% generation %}b{{ messages[1].content }}{% endgeneration %}c{% generation %}{% endgeneration %}",
        "{% set x %}{% for m in messages %}{{ m.role }}{% endfor %}{% endset %}{{ x | upper }}",
        "{{ '{0.__class__}'.format(1) }}{{ ''.__class__ }}{{ messages.__len__ }}{{ messages[0].missing }}|",
    ],
)
@pytest.mark.parametrize("to_answer", [False, True])
def test_texts_and_spans_are_those_of_transformers(source: str, to_answer: bool) -> None:
    expected, spans = render_jinja_template(
        [MESSAGES],
        chat_template=source,
        return_assistant_tokens_mask=True,
        add_generation_prompt=to_answer,
        **NAMES,
    )
    rendered = made(source).render(MESSAGES, to_answer=to_answer)
    assert rendered.text == expected[0]
    assert rendered.answers == (spans[0] if "{% generation" in source else None)


def test_the_time_is_the_given_one() -> None:
    assert made("{{ strftime_now('%Y-%m-%d %H:%M') }}").render(MESSAGES).text == "2026-02-03 04:05"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("{{ raise_exception('No system here.') }}", r"does not take this conversation: No system here\.$"),
        ("{{ messages[7].content.strip() }}", r"fails: list object has no element 7\.$"),
        ("{{ messages[0].content + 1 }}", "fails: "),
        ("{% include 'other.jinja' %}", "fails: "),
        ("{{ ''.__class__.__mro__ }}", "uses something that the sandbox forbids: .*__class__"),
        ("{{ messages.append(1) }}", "uses something that the sandbox forbids"),
        ("{{ messages[0].update(role='x') }}", "uses something that the sandbox forbids"),
        ("{% set ns = namespace() %}{% set ns.__init__ = 1 %}", "begins with an underscore"),
        ("{{ namespace(_a=1) }}", "begins with an underscore"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "loop iterations"),
        (
            "{% macro f() %}{% endmacro %}{% for a in range(99999) %}{{ f() }}{{ f() }}{{ f() }}{% endfor %}",
            "loop iterations",
        ),
        ("{{ range(10000000) }}", "fails: Range too big"),
        ("{{ 'a' * 1000000000 }}", f"more than {MAX_CHARACTERS:,} characters"),
        ("{{ 1000000000 * [0] }}", f"more than {MAX_CHARACTERS:,} characters"),
        ("{{ 9 ** 99999999 }}", "number of more than 4,096 bits"),
        ("{% set ns = namespace(n=9) %}{% for a in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}", "4,096 bits"),
        ("{% set a = 'a' * 99999 %}{% for b in range(999) %}{{ a }}{% endfor %}", "characters"),
        ("{{ lipsum(1000000) }}", "fails: 'lipsum' is undefined"),
    ],
)
def test_what_a_template_does_wrong_is_said_and_ends(source: str, what: str) -> None:
    template = made(source)
    with pytest.raises(InputError) as error:
        template.render(MESSAGES)
    assert re.search(what, error.value.what)
    assert error.value.exit_code == 3
    assert error.value.where == "chat_template.jinja"
    assert error.value.fix
    assert made("fine").render(MESSAGES).text == "fine"


@pytest.mark.parametrize("source", ["a\n{% for %}", "a\n{% generation %}", "a\n{{ 'b' | nonsense }}", "a\n{% endif %}"])
def test_a_template_that_is_none_is_refused_with_its_line(source: str) -> None:
    with pytest.raises(InputError, match="The chat template cannot be read: ") as error:
        made(source)
    assert error.value.where == "chat_template.jinja, line 2"


def test_a_template_cannot_change_the_conversation_or_see_another_rendering() -> None:
    template = made("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}")
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(template.render([{"role": "user", "content": "abc"}] * 50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [template.render([{"role": "user", "content": "abc"}] * 50)] * 4
