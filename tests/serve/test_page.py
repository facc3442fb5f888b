"""The page in Chromium: that it works at all, and its computations against acorn's own."""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import chromium, opened
from tiny_servers import serving

from acorn.checkpoint.load import LoadedModel
from acorn.generate.sampling import candidates
from acorn.kernels.sample import RowSettings
from acorn.serve.inspect import distribution_of
from acorn.serve.scheduler import Scheduler


@pytest.fixture(scope="module")
def page(watched_run: Path, watched_model: LoadedModel) -> Iterator[Any]:
    served = serving(watched_model, scheduler=Scheduler, run=watched_run)
    with chromium() as browser, served as running, opened(browser, running.url) as page:
        yield page


def test_a_prompt_is_read_and_continued(page: Any) -> None:
    page.get_by_label("Prompt", exact=True).fill("the cat saw")
    page.locator(".branch", has_text="the cat saw").wait_for()
    page.get_by_text("of 300 tokens can be chosen").wait_for()
    assert page.get_by_role("tabpanel").locator(".tokens").inner_text().endswith("the cat saw")
    page.get_by_label("New tokens").fill("7")
    page.get_by_role("button", name="Continue the text").click()
    note = page.get_by_text(re.compile(r"from token \d+, \d+ tokens, seed"))
    note.wait_for()
    page.get_by_text(re.compile("The model ended the text|7 tokens, seed")).first.wait_for()
    count = int(re.search(r"(\d+) tokens, seed", note.inner_text())[1])
    assert 1 <= count <= 7  # the seed is random, and the model may end the text
    assert page.locator(".token.new").count() == count


SETTINGS = [
    {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    for temperature, top_k, top_p, min_p in itertools.product(
        (0.3, 1.0, 1.9), (0, 1, 40, 300), (1.0, 0.9, 0.2), (0.0, 0.05)
    )
]


def test_settings_change_the_distribution_as_in_the_sampler(page: Any) -> None:
    """Also where the filters cut among tokens that the page knows only in bins."""
    logits = torch.randn(400, generator=torch.Generator().manual_seed(1)) * 2
    following = distribution_of(logits, 60, [3])
    known = {"top": [[token, "x", value] for token, value in following.top], "rest": following.rest, "unsampled": 0}
    found = page.evaluate(
        """async ([next, all]) => {
            const { afterSettings } = await import("/page/distribution.js");
            return all.map((settings) => afterSettings(next, settings));
        }""",
        [known, SETTINGS],
    )
    for settings, after in zip(SETTINGS, found, strict=True):
        row = RowSettings(
            (), 0.5, settings["temperature"], settings["top_k"], settings["top_p"], settings["min_p"], 1.0, False
        )
        weights = candidates(logits.index_fill(0, torch.tensor([3]), -math.inf)[None], [row])[0].exp().double()
        expected = weights / weights.sum()
        # Where a filter cuts a bin of 0.1 nats, the page is wrong by a few unlikely tokens: by under a hundredth.
        exact = after["rest"] == 0
        for token in after["tokens"]:
            assert token["p"] == pytest.approx(float(expected[token["id"]]), rel=1e-4 if exact else 0.01, abs=1e-9), (
                settings
            )
        assert after["kept"] == pytest.approx(int((weights > 0).sum()), abs=0 if after["rest"] == 0 else 8), settings
        assert after["rest"] + sum(token["p"] for token in after["tokens"]) == pytest.approx(1)


def test_greedy_takes_the_most_likely_token(page: Any) -> None:
    found = page.evaluate(
        """async (next) => {
            const { afterSettings } = await import("/page/distribution.js");
            return afterSettings(next, { temperature: 0, top_k: 0, top_p: 1, min_p: 0 });
        }""",
        {"top": [[5, "a", -0.5], [6, "b", -1.2]], "rest": [[-5, 20]], "unsampled": 0},
    )
    assert [token["p"] for token in found["tokens"]] == [1, 0]
    assert (found["rest"], found["kept"]) == (0, 1)


def test_branches_keep_what_is_before_them(page: Any) -> None:
    texts = page.evaluate(
        """async () => {
            const { Tree } = await import("/page/tree.js");
            const tree = new Tree(["a", "b"]);
            const long = tree.branch(tree.root, 2, ["c", "d", "e"]);
            const inner = tree.branch(long, 3, ["x"]);
            const prompt = tree.branch(inner, 1, ["y"]);
            const onInner = tree.branch(inner, 4, ["z"]);
            return [long, inner, prompt, onInner].map((one) => tree.path(one).join("") + tree.start(one))
                .concat([...tree.walk()].map(([, depth]) => depth).join(""));
        }"""
    )
    assert texts == ["abcde2", "abcx2", "ay1", "abcxz2", "01231"]


PROMPTS = ["the cat", 'it\'s "quoted" $HOME `id` \\ \n two lines', "naïve 橡树 </script> '; rm -rf /"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_commands_say_what_the_page_does(page: Any, prompt: str) -> None:
    settings = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1, "max_tokens": 20, "seed": 3}
    commands = page.evaluate(
        """async ([prompt, settings]) => (await import("/page/commands.js")).commandsFor({
            served: { name: "tiny", run: { folder: "runs/my run" }, model: {} }, prompt, settings, origin: "http://localhost:1",
        })""",
        [prompt, settings],
    )
    curl = shlex.split(commands["curl"].replace("\\\n", ""))
    assert curl[:2] == ["curl", "http://localhost:1/v1/completions"]
    assert json.loads(curl[-1]) == {"model": "tiny", "prompt": prompt, **settings}
    acorn = shlex.split(commands["acorn"].replace(" \\\n", ""))
    assert acorn[:5] == ["acorn", "generate", "runs/my run", "--prompt", prompt]
    assert acorn[5:] == shlex.split("--max-new-tokens 20 --temperature 0.5 --top-k 7 --top-p 0.9 --min-p 0.1 --seed 3")
    calls = [node for node in ast.walk(ast.parse(commands["Python"])) if isinstance(node, ast.Call)]
    create = next(call for call in calls if ast.unparse(call.func) == "client.completions.create")
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in create.keywords}
    extra = {"top_k": settings.pop("top_k"), "min_p": settings.pop("min_p")}
    assert given == {"model": "tiny", "prompt": prompt, **settings, "extra_body": extra}
