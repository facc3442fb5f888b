"""Every view of the page, used as a person would, in light and dark, on a wide screen and on a phone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, opened
from finetuned_runs import finetuned_run
from tiny_servers import KEY, RefusingScheduler, Running, serving

from acorn.checkpoint.load import LoadedModel, load
from acorn.serve.scheduler import NotReadyError, QueueFullError, Scheduler

__all__ = ["finetuned_run"]

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)> the cat <script>document.title='taken'</script>"
SCREENS = {
    "wide, light": {"color_scheme": "light"},
    "wide, dark": {"color_scheme": "dark", "reduced_motion": "reduce"},
    "phone, light": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
    "phone, dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def run(watched_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, to which tests add lines."""
    return Path(shutil.copytree(watched_run, tmp_path_factory.mktemp("walk") / "tiny"))


@pytest.fixture(scope="module")
def server(run: Path, watched_model: LoadedModel) -> Iterator[Running]:
    with serving(watched_model, scheduler=RefusingScheduler, run=run) as running:
        yield running


@pytest.fixture(params=SCREENS)
def page(request: pytest.FixtureRequest, browser: Any, server: Running) -> Iterator[Any]:
    with opened(browser, server.url, **SCREENS[request.param]) as page:
        yield page


def go_to(page: Any, view: str) -> Any:
    page.get_by_role("tab", name=view).click()
    return page.get_by_role("tabpanel", name=view)


def check(page: Any) -> None:
    """Nothing is wider than the screen, and axe finds nothing serious."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = axe.run(page).response["violations"]
    serious = [
        (rule["id"], [node["html"][:200] for node in rule["nodes"][:3]])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]
    assert serious == []


def write(panel: Any, tokens: int = 6) -> None:
    panel.get_by_label("New tokens").fill(str(tokens))
    panel.get_by_role("button", name="Continue the text").click()
    panel.get_by_text(f"{tokens} tokens, seed").last.wait_for()


def test_write(page: Any) -> None:
    panel = go_to(page, "Write")
    panel.get_by_label("Prompt", exact=True).fill("the cat saw")
    panel.locator(".branch", has_text="the cat saw").wait_for()
    before = panel.locator(".bar .share").all_inner_texts()
    panel.get_by_label("Temperature").fill("0.1")
    assert panel.locator(".bar .share").all_inner_texts() != before  # redrawn at once
    panel.get_by_label("Top-k").fill("1")
    panel.get_by_text("1 of 300 tokens can be chosen").wait_for()
    panel.get_by_label("Top-k").fill("0")
    panel.get_by_label("Temperature").fill("1")
    write(panel)
    for name in ("Entropy", "Rank", "Surprise"):
        panel.get_by_label(name, exact=True).check()
        assert name in str(panel.locator(".token.new").first.get_attribute("aria-label"))

    panel.locator(".token.new").nth(2).click()
    assert panel.locator(".detail .bar").count() == 20
    chosen = panel.locator(".detail .bar:not(.current)").first
    piece = chosen.locator(".piece").inner_text()
    chosen.click()
    panel.get_by_text("7 tokens, seed").wait_for()
    assert panel.locator(".branch").count() == 3
    assert panel.locator(".token.new").nth(2).inner_text().strip() == piece.replace("␣", " ").strip()
    panel.locator(".branch").nth(1).click()
    assert panel.locator(".branch[aria-current=true]").count() == 1
    check(page)


def test_write_by_keyboard(page: Any) -> None:
    panel = go_to(page, "Write")
    panel.get_by_label("New tokens").fill("5")
    prompt = panel.get_by_label("Prompt", exact=True)
    prompt.fill("the dog")
    prompt.press("Control+Enter")
    panel.get_by_text("5 tokens, seed").wait_for()
    first = panel.locator(".token[tabindex='0']")
    assert first.count() == 1
    first.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    panel.get_by_text("What could stand here: choose one to branch").wait_for()
    last = panel.locator(".token").count() - 2
    assert "selected" in str(panel.locator(".token").nth(last).get_attribute("class"))
    page.get_by_role("tab", name="Write").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Read").get_attribute("aria-selected") == "true"
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")  # around
    assert page.get_by_role("tab", name="Write").get_attribute("aria-selected") == "true"


def test_read(page: Any) -> None:
    panel = go_to(page, "Read")
    panel.get_by_label("Your text").fill(f"the cat saw a naïve dog. {HOSTILE}")
    panel.get_by_role("button", name="Read it").click()
    panel.get_by_text("Bits per byte").wait_for()
    assert panel.locator(".tokens img, .tokens script, .worst img").count() == 0
    assert page.title() != "taken"
    assert panel.locator(".worst li").count() == 10
    panel.locator(".place").first.click()
    assert panel.get_by_text("What could stand here").count() == 1
    panel.get_by_text("Pieces, ids and bytes of").click()
    panel.get_by_role("columnheader", name="Bytes").wait_for()
    check(page)


def test_look_inside(page: Any) -> None:
    panel = go_to(page, "Look inside")
    panel.get_by_label("Text", exact=True).fill("the cat saw a dog")
    panel.get_by_role("button", name="Look inside").click()
    panel.get_by_text("Attends most to").wait_for()
    panel.locator(".token").nth(2).click()
    panel.get_by_label("Head").select_option("1")
    assert panel.locator("svg.arcs path").count() >= 1
    check(page)


def test_watch_a_run_that_grows(page: Any, run: Path) -> None:
    panel = go_to(page, "Watch")
    panel.get_by_role("img", name="Training and validation").wait_for()
    metrics = run / "metrics.jsonl"
    before = metrics.read_bytes()
    try:
        with open(metrics, "ab") as file:
            file.write(json.dumps({"step": 4321, "split": "train", "loss": 1.5, "bits_per_byte": 1.2}).encode() + b"\n")
        panel.get_by_text("4,321").wait_for()
    finally:
        metrics.write_bytes(before)  # as a resumed run does
    panel.get_by_text("4,321").wait_for(state="detached")
    assert panel.locator(".sample").count() == 2
    check(page)


def test_film(page: Any) -> None:
    panel = go_to(page, "Watch")
    panel.get_by_label("Prompt of the film").fill("the cat saw")
    panel.get_by_role("button", name="Make the film").click()
    panel.get_by_text("step 12", exact=True).wait_for()
    slider = panel.get_by_label("Checkpoint", exact=True)
    assert slider.get_attribute("max") == "2"
    newest = panel.locator(".token").nth(2).get_attribute("aria-label")
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    panel.get_by_text("step 4", exact=True).wait_for()
    assert panel.locator(".token").nth(2).get_attribute("aria-label") != newest
    panel.get_by_role("button", name="Play").click()
    panel.get_by_text("step 8", exact=True).wait_for()
    panel.get_by_role("button", name="Pause").click()
    check(page)


def test_compare(page: Any) -> None:
    panel = go_to(page, "Compare")
    panel.get_by_label("Prompt", exact=True).fill("the cat")
    panel.get_by_label("New tokens").fill("5")
    panel.get_by_label("Seed").fill("3")
    panel.get_by_role("button", name="Compare").click()
    panel.get_by_text("Seed 3.").wait_for()
    assert panel.locator(".sides .tokens").count() == 2
    panel.locator(".sides .token.new").first.click()
    assert panel.get_by_text("bits").count() > 2
    check(page)


def test_what_is_saved_needs_nothing_else(page: Any, browser: Any, tmp_path: Path) -> None:
    panel = go_to(page, "Write")
    panel.get_by_label("Prompt", exact=True).fill("<img src=x>")
    panel.locator(".branch", has_text="<img src=x>").wait_for()
    write(panel)
    panel.locator(".token.new").first.click()
    with page.expect_download() as download:
        panel.get_by_role("button", name="Save as one HTML file").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == "tiny-write.html"
    context = browser.new_context(offline=True)
    saved, faults = context.new_page(), []
    saved.on("console", lambda message: faults.append(message.text))
    saved.on("request", lambda request: None if request.url.startswith("file:") else faults.append(request.url))
    saved.goto(file.as_uri())
    assert saved.locator(".token").count() == panel.locator(".token").count()
    assert saved.locator("script, img, button, input, textarea, link").count() == 0
    assert "<img src=x>" in saved.locator("body").inner_text()
    assert saved.locator(".detail .bar").count() == 20
    context.close()
    assert faults == []


def test_commands_are_copied(browser: Any, server: Running) -> None:
    with opened(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        panel = go_to(page, "Write")
        panel.get_by_label("Prompt", exact=True).fill("the cat's")
        panel.get_by_text("Use these settings elsewhere").click()
        for name, begin in (("curl", "curl 'http://127"), ("Python", "from openai"), ("acorn", "acorn generate")):
            panel.get_by_role("button", name=f"Copy as {name}").click()
            panel.get_by_text("Copied.").last.wait_for()
            assert page.evaluate("navigator.clipboard.readText()").startswith(begin)
        check(page)


def test_a_token_that_is_chosen_early_gets_its_alternatives(browser: Any, server: Running) -> None:
    """While a text streams in, only some figures are known; the others come at its end."""
    held: list[Any] = []
    with opened(browser, server.url) as page:
        panel = go_to(page, "Write")
        panel.get_by_label("Prompt", exact=True).fill("the cat")
        panel.locator(".branch", has_text="the cat").wait_for()
        page.route("**/v1/inspect", lambda route: held.append(route))
        panel.get_by_label("New tokens").fill("4")
        with page.expect_request("**/v1/inspect"):
            panel.get_by_role("button", name="Continue the text").click()
        panel.locator(".token.new").nth(1).click()
        panel.get_by_text("Asking the model").wait_for()
        [route] = held
        route.continue_()
        panel.locator(".detail .bar").nth(19).wait_for()


def test_a_full_context_is_said(browser: Any, server: Running) -> None:
    with opened(browser, server.url) as page:
        panel = go_to(page, "Write")
        panel.get_by_label("Prompt", exact=True).fill("the cat saw " * 6)
        panel.locator(".branch", has_text="the cat saw").wait_for()
        panel.get_by_role("button", name="Continue the text").click()
        panel.get_by_text("The context is full").wait_for()


def test_a_server_with_a_key_asks_for_it(browser: Any, watched_model: LoadedModel, run: Path) -> None:
    with serving(watched_model, scheduler=Scheduler, run=run, key=KEY) as running:
        assert running.request("GET", "/")[0] == 401
        with opened(browser, running.url, http_credentials={"username": "me", "password": KEY}) as page:
            write(go_to(page, "Write"), 3)
            go_to(page, "Watch").get_by_role("img", name="Training and validation").wait_for()


def test_errors_are_said_plainly(browser: Any, server: Running) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    page.get_by_role("tab", name="Read").click()
    panel = page.get_by_role("tabpanel", name="Read")
    for refusal, said in (
        (QueueFullError(), "The server is busy. Try again in 1 s."),
        (NotReadyError(), "The server is loading its model, or is stopping. Try again in 1 s."),
    ):
        panel.get_by_label("Your text").fill("the cat")
        server.scheduler.refusal = refusal
        panel.get_by_role("button", name="Read it").click()
        panel.get_by_text(said).wait_for()
        server.scheduler.refusal = None
    panel.get_by_label("Your text").fill("cat " * 30_000)
    panel.get_by_role("button", name="Read it").click()
    panel.get_by_text("Shorten it.").wait_for()
    panel.get_by_label("Your text").fill("")
    panel.get_by_role("button", name="Read it").click()
    panel.get_by_text("Give a text.").wait_for()
    panel.get_by_label("Your text").fill("the cat")
    panel.get_by_role("button", name="Read it").click()
    panel.get_by_text("Bits per byte").wait_for()
    context.close()


def test_chat(browser: Any, finetuned_run: Callable[[str], Path]) -> None:
    run = finetuned_run("chat")
    with serving(load(run), scheduler=Scheduler, run=run) as running:
        for screen in SCREENS.values():
            with opened(browser, running.url, **screen) as page:
                panel = go_to(page, "Chat")
                for number in (1, 2):
                    panel.get_by_label("Your message").fill("<b>hi</b>")
                    panel.get_by_label("Your message").press("Enter")
                    panel.locator(".said.user", has_text="<b>hi</b>").nth(number - 1).wait_for()
                    panel.locator("button:enabled", has_text="Send").wait_for()
                assert panel.locator(".said.assistant").count() >= 1
                assert panel.locator(".said b").count() == 0
                check(page)
                panel.get_by_role("button", name="New conversation").click()
                assert panel.locator(".said").count() == 0


@pytest.mark.parametrize("task", ["classify", "tag"])
def test_classify(browser: Any, finetuned_run: Callable[[str], Path], task: str) -> None:
    run = finetuned_run(task)
    with serving(load(run), scheduler=Scheduler, run=run) as running:
        for screen in SCREENS.values():
            with opened(browser, running.url, **screen) as page:
                assert page.get_by_role("tab").all_inner_texts() == ["Watch", "Classify"]
                panel = go_to(page, "Classify")
                panel.get_by_label("Texts, one a line").fill(f"the cat saw\n{HOSTILE}")
                panel.get_by_role("button", name="Ask the model").click()
                panel.locator(".card").nth(1).wait_for()
                assert panel.locator("img, script").count() == 0
                assert panel.locator(".card .bar").count() == (4 if task == "classify" else 0)
                check(page)
