"""The page of a report in a browser, as a desktop and as a telephone show it: filters, links, keys, no word of complaint, nothing asked for."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from iadr1.comparison import Comparison
from iadr1.report_page import Evaluation, page
from tests import chromium
from tests.test_report_page import HOSTILE, LOG, answers, drawn

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium.PROGRAM is None, reason="needs Chromium")]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
CARDS = 2000
BOUND = 2.0  # seconds that a filter may take on a slow and busy machine; the time is printed


@pytest.fixture(scope="module")
def predictions():
    found = answers(CARDS - 40) + answers(40, dataset="visa")
    return [replace(found[0], text=f"{HOSTILE}{found[0].text}"), *found[1:]]


@pytest.fixture(scope="module")
def address(predictions, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    told = Evaluation(predictions, drawn(folder / "images", predictions, side=160), backbone="Qwen2-VL-2B", logs={"SC-GRPO": LOG})
    (folder / "page.html").write_text(page(told), encoding="utf-8")
    print(f"page of {CARDS} images: {(folder / 'page.html').stat().st_size / 1e6:.1f} MB")
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module", params=SIZES)
def shown(request, address, tmp_path_factory) -> Iterator[chromium.Page]:
    with chromium.chromium(tmp_path_factory.mktemp("browser"), "about:blank") as browser:
        for domain in ("Runtime", "Network", "Log"):
            browser.call(f"{domain}.enable")
        browser.resize(*SIZES[request.param], phone=request.param == "phone")
        visit(browser, address)
        yield browser
        assert [
            event
            for event in browser.events
            if event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        ] == []
        asked = {event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"}
        assert {url for url in asked if not url.startswith("data:")} <= {address, "about:blank"} | {
            url for url in asked if url.startswith(f"{address}#")
        }


def visit(browser: chromium.Page, address: str) -> None:
    browser.call("Page.navigate", url="about:blank")
    browser.call("Page.navigate", url=address)
    browser.until("document.querySelector('.card') !== null")


def count(browser: chromium.Page) -> int:
    return int(browser.value("document.getElementById('count').textContent.split(' ')[0].replace(',', '')"))


def choose(browser: chromium.Page, name: str, value: str) -> float:
    """Choose a filter's value as a person does; the seconds until the page has drawn what is left."""
    return browser.value(
        f"""new Promise((done) => {{
          const select = document.getElementById({json.dumps(f"filter-{name}")}), start = performance.now();
          select.value = {json.dumps(value)};
          select.dispatchEvent(new Event("change"));
          requestAnimationFrame(() => setTimeout(() => done((performance.now() - start) / 1000)));
        }})"""
    )


def test_the_page_is_no_wider_than_its_window(shown):
    assert shown.value("document.documentElement.scrollWidth <= window.innerWidth")
    assert shown.value(
        "[...document.querySelectorAll('main *')].every((each) => each.closest('.wide, svg, dialog') || each.getBoundingClientRect().right <= innerWidth + 1)"
    )


def test_filters_leave_what_the_comparison_counts_and_are_quick(shown, address, predictions):
    visit(shown, address)
    compared = {each.dataset: each for each in Comparison.of(predictions, "base", "sc_grpo").datasets}
    took = [choose(shown, "dataset", "visa"), choose(shown, "status", "fixed")]
    assert count(shown) == compared["visa"].only_second
    took += [choose(shown, "dataset", ""), choose(shown, "status", "broken")]
    assert count(shown) == sum(each.only_first for each in compared.values())
    took += [choose(shown, "status", ""), choose(shown, "model", "sc_grpo"), choose(shown, "kind", "miss")]
    assert count(shown) == sum(each.model == "sc_grpo" and each.anomalous and each.verdict.anomalous is False for each in predictions)
    shown.value("document.getElementById('clear').click()")
    assert count(shown) == CARDS
    print(f"a filter over {CARDS} images: {max(took):.3f} s at most, {sum(took) / len(took):.3f} s on average")
    assert max(took) < BOUND


def test_a_link_shows_what_its_sender_saw(shown, address):
    visit(shown, f"{address}#gallery&dataset=visa&truth=normal")
    assert count(shown) == 20
    choose(shown, "kind", "right")
    told = shown.value("location.hash")
    left = count(shown)
    visit(shown, address + told)
    assert (count(shown), shown.value("document.getElementById('filter-kind').value")) == (left, "right")


def test_a_number_of_a_table_leads_to_its_images(shown, address):
    visit(shown, address)
    links = "[...document.querySelectorAll('#compared a, #errors a, #products a')]"
    followed = 0
    for at in range(0, shown.value(f"{links}.length"), 3):
        told = shown.value(f"(() => {{ const link = {links}[{at}]; link.click(); return link.textContent.replace(',', ''); }})()")
        shown.until("location.hash.startsWith('#gallery&')")
        if told.isdigit():
            shown.until(f"document.getElementById('count').textContent.replace(',', '').split(' ')[0] === '{told}'")
            followed += 1
    assert followed > 3


def test_cards_are_built_when_they_are_looked_at(shown, address):
    visit(shown, address)
    built = "document.querySelectorAll('.card').length"
    assert shown.value(built) < CARDS / 4
    shown.value("document.getElementById('more').scrollIntoView()")
    shown.until(f"{built} > 48")


def test_keys_lead_through_the_gallery(shown, address):
    visit(shown, f"{address}#gallery")
    shown.call("Page.bringToFront")
    shown.until("document.hasFocus()")
    shown.press("j")
    shown.until("document.activeElement.dataset.at === '0'")
    shown.press("j")
    shown.until("document.activeElement.dataset.at === '1'")
    shown.value("document.activeElement.click()")
    assert shown.value("document.getElementById('detail').open")
    shown.press("ArrowRight")
    assert shown.value("document.getElementById('detail-name').textContent") == "mvtec/0006"  # of the product part0: 0, 3, 6
    shown.value("document.getElementById('detail').close()")
    shown.until("document.activeElement.dataset.at === '2'")
    shown.press("m")
    assert shown.value("getComputedStyle(document.querySelector('.outline')).display") == "none"
    shown.press("m")
    shown.press("/")
    shown.write("visa 0007")
    shown.until("document.getElementById('count').textContent.startsWith('1 of')")


def test_a_hostile_answer_is_text(shown, address):
    visit(shown, f"{address}#gallery&search={HOSTILE[:17].replace('<', '%3C')}")
    assert count(shown) == 1
    assert HOSTILE[:17] in shown.value("document.getElementById('cards').textContent")
    assert shown.value("document.querySelectorAll('script').length") == 2


def test_print_and_dark_have_their_colours(shown):
    paper = "getComputedStyle(document.body).backgroundColor"
    shown.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = shown.value(paper)
    shown.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert (dark, shown.value(paper)) == ("rgb(20, 23, 27)", "rgb(255, 255, 255)")
    assert shown.value("getComputedStyle(document.getElementById('filters')).display") == "none"
    assert len(shown.call("Page.printToPDF")["data"]) > 10_000
    shown.call("Emulation.setEmulatedMedia", media="", features=[])
