"""The report in a browser: nothing leaves it, nothing is wrong, it fits, and its tables sort."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from equimodal.compare.runs import Entry
from equimodal.report.document import page_of
from equimodal.report.findings import Findings
from equimodal.report.findings import read as read_findings
from equimodal.report.page import rendered
from equimodal.report.results import read
from support.chromium import FOUND, Chromium
from support.reports import comparison, diagnosis

pytestmark = pytest.mark.skipif(FOUND is None, reason="no chromium: apt-get install chromium")

MODALITIES = ("accelerometer", "gyroscope")
ENTRIES = [
    Entry("gyroscope alone", "unimodal", {"modality": "gyroscope"}),
    Entry("joint", "joint"),
    Entry("ogm", "ogm", grid={"alpha": (0.3,)}),
    Entry("a-method-whose-name-is-much-longer-than-any-screen-of-a-phone-is-wide", "pmr"),
]
SCRIPT = "<img src=x onerror=alert(1)><script>alert(1)</script>"
RESULTS = "#results table.sortable:not(details table)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as found:
        yield found


def written(folder: Path, modalities: tuple[str, ...], entries: list[Entry]) -> Path:
    comparison(folder, modalities, entries, plan=True)
    (folder / "diagnosis.json").write_text(json.dumps(diagnosis(modalities)))
    page = folder / "report.html"
    page.write_text(rendered(page_of(read(folder), read_findings(folder / "diagnosis.json"))))
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("results"), MODALITIES, ENTRIES)


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_nothing_is_wrong(
    browser: Chromium, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width, dark=dark)
    assert browser.value("document.documentElement.scrollWidth") == width
    wide = browser.value(
        f"[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg') && "
        f"e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    browser.value("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("document.querySelectorAll('svg[role=img]').length") >= 10
    assert browser.requests == [page.as_uri()]
    assert browser.console == []


@pytest.mark.parametrize(("seeds", "standing"), [(5, "not told apart"), (3, "too few seeds (3)")])
def test_the_results_are_whole_on_a_desktop(
    browser: Chromium, tmp_path: Path, seeds: int, standing: str
) -> None:
    """With intervals everywhere, the longest standings, and the longest of our names."""
    entries = [Entry(name, name) for name in ("joint", "ogm", "diagnosing-relearning", "mimo")]
    comparison(tmp_path, MODALITIES, entries, range(seeds))
    page = tmp_path / "report.html"
    page.write_text(rendered(page_of(read(tmp_path), Findings({}))))
    browser.open(page, 1265)  # 1280 without the bar that scrolls the page
    table = f"document.querySelector('{RESULTS}')"
    assert browser.value(f"{table}.textContent.includes('{standing}')")
    assert browser.value(f"{table}.textContent.includes('other samples too')")
    free = browser.value(f"{table}.closest('.scroll').clientWidth - {table}.scrollWidth")
    assert free >= 0


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_behind_it(browser: Chromium, page: Path, dark: bool) -> None:
    """At least 4.5 to 1, as WCAG asks for; marks of figures 2 to 1, since they have tables too."""
    browser.open(page, dark=dark)
    tones = browser.value(
        "(() => { const s = getComputedStyle(document.documentElement); return Object.fromEntries("
        "['--paper','--card','--warn','--ink','--soft','--link','--good','--bad','--quiet','--s1',"
        "'--s2','--s3','--s4','--s5','--s6'].map(n => [n, s.getPropertyValue(n).trim()])) })()"
    )
    assert (luminance(tones["--paper"]) < 0.2) == dark
    for behind in ("--paper", "--card", "--warn"):
        for tone in ("--ink", "--soft", "--link"):
            assert contrast(tones[tone], tones[behind]) >= 4.5, (tone, behind)
    for tone in ("--good", "--bad"):
        assert contrast(tones[tone], tones["--paper"]) >= 4.5, tone
    for number in range(1, 7):
        assert contrast(tones[f"--s{number}"], tones["--paper"]) >= 2, number
    colour = "getComputedStyle(document.querySelector('{}')).{}"
    text = browser.value(colour.format("svg[role=img] text", "fill"))
    assert text == browser.value(colour.format("body", "color"))


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def column(browser: Chromium, name: str) -> list[str]:
    """Return the cells of a column of the results, as they stand."""
    found: list[str] = browser.value(
        f"(() => {{ const t = document.querySelector('{RESULTS}'); const n = "
        "[...t.tHead.rows[0].cells].findIndex(c => c.textContent.trim() === "
        f"{json.dumps(name)}); return [...t.tBodies[0].rows].map(r => r.cells[n].dataset.value) }})()"
    )
    return found


def sort_by(browser: Chromium, name: str, how: str) -> str:
    """Click the heading of a column, or press Enter on it, and return its `aria-sort`."""
    button = (
        f"[...document.querySelectorAll('{RESULTS} thead button')].find(b => "
        f"b.textContent === {json.dumps(name)})"
    )
    if how == "click":
        browser.value(f"{button}.click()")
    else:
        browser.value(f"{button}.focus()")
        browser.press("Enter")
    sorts: list[str] = browser.value(
        f"[...document.querySelectorAll('{RESULTS} thead th')].map(h => h.ariaSort)"
    )
    assert len([each for each in sorts if each != "none"]) == 1
    found: str = browser.value(f"{button}.closest('th').ariaSort")
    return found


@pytest.mark.parametrize("how", ["click", "key"])
def test_tables_sort(browser: Chromium, page: Path, how: str) -> None:
    browser.open(page)
    before = column(browser, "accuracy")
    assert sort_by(browser, "accuracy", how) == "descending"
    assert column(browser, "accuracy") == sorted(before, key=float, reverse=True)
    assert sort_by(browser, "accuracy", how) == "ascending"
    assert column(browser, "accuracy") == sorted(before, key=float)
    assert before != sorted(before, key=float)
    assert sort_by(browser, "method", how) == "ascending"
    names = column(browser, "method")
    assert names == sorted(names)
    for order in ("descending", "ascending"):  # joint has no difference to itself: last in both
        assert sort_by(browser, "against joint", how) == order
        assert column(browser, "against joint")[-1] == ""
        assert column(browser, "method")[-1] == "joint"


def test_every_heading_is_reached_by_the_keyboard(browser: Chromium, page: Path) -> None:
    browser.open(page)
    browser.value(f"document.querySelector('{RESULTS}').closest('.scroll').focus()")
    browser.press("Tab")
    found = browser.value("[document.activeElement.tagName, document.activeElement.textContent]")
    assert found == ["BUTTON", browser.value(f"document.querySelector('{RESULTS} th').textContent")]


def test_without_its_script_it_can_be_read(browser: Chromium, page: Path) -> None:
    browser.open(page, javascript=False)
    assert browser.console == []
    tree = browser.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
    html = browser.call("DOM.getOuterHTML", nodeId=tree)["outerHTML"]
    assert "<button" not in html
    assert "against joint</th>" in html
    browser.open(page)  # with scripts again


def test_its_policy_stops_what_is_not_its_own(browser: Chromium, page: Path) -> None:
    browser.open(page)
    browser.value(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.hit = 1'; "
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; "
        "document.body.insertAdjacentHTML('beforeend', '<a onclick=\"window.hit = 1\">x</a>'); "
        "document.body.lastChild.click() })()"
    )
    browser.value("fetch('http://127.0.0.1:9/').catch(() => 0); 1")
    assert browser.value("window.hit === undefined")
    assert len(browser.console) >= 3
    assert all("Content Security Policy" in each for each in browser.console)


def test_names_do_nothing_in_a_browser(browser: Chromium, tmp_path: Path) -> None:
    names = (f"one{SCRIPT}", "two</svg><script>alert(2)</script>")
    entries = [Entry("joint", "joint"), Entry("x", "x\"'><script>alert(3)</script>")]
    hostile = written(tmp_path, names, entries)
    browser.open(hostile)
    assert browser.console == []
    assert browser.requests == [hostile.as_uri()]
    counts: dict[str, Any] = browser.value(
        "({scripts: document.scripts.length, images: document.images.length, "
        "on: document.querySelectorAll('[onerror], [onload]').length})"
    )
    assert counts == {"scripts": 1, "images": 0, "on": 0}
    assert browser.value(f"document.body.innerText.includes({json.dumps(SCRIPT)})")


def test_it_prints_in_light_colours(browser: Chromium, page: Path) -> None:
    browser.open(page, dark=True, media="print")
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
