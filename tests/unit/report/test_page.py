"""The page is one file, says what is wrong, can be read without eyes, and cannot be broken into."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from equimodal.compare.runs import Entry, Run
from equimodal.errors import SetupError
from equimodal.report.document import page_of, write_report
from equimodal.report.findings import Findings
from equimodal.report.findings import read as read_findings
from equimodal.report.page import rendered
from equimodal.report.results import read
from support.reports import Markup, change, comparison, diagnosis, result

MODALITIES = ("accelerometer", "gyroscope")
ENTRIES = [
    Entry("accelerometer alone", "unimodal", {"modality": "accelerometer"}),
    Entry("joint", "joint"),
    Entry("ogm", "ogm", grid={"alpha": (0.3,)}),
]
HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'></svg><svg onload=alert(1)>",
    "</style><script>alert(1)</script>{{ 7 * 7 }} $x_2$ & \x00\x1b\ud800",
]


def markup_of(folder: Path, found: dict[str, Any] | None = None) -> tuple[str, Markup]:
    findings = Findings({})
    if found is not None:
        (folder / "diagnosis.json").write_text(json.dumps(found))
        findings = read_findings(folder / "diagnosis.json")
    html = rendered(page_of(read(folder), findings))
    return html, Markup(html)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Markup]:
    """The page of a comparison with a diagnosis."""
    folder = tmp_path_factory.mktemp("whole")
    comparison(folder, MODALITIES, ENTRIES, plan=True)
    return markup_of(folder, diagnosis())


def test_it_loads_nothing(whole: tuple[str, Markup]) -> None:
    html, page = whole
    assert "://" not in html
    assert not page.of("link", "img", "iframe", "object", "embed", "base", "form", "image")
    for tag, attributes in page.elements:
        assert "src" not in attributes, tag
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert "style" not in attributes, tag
    assert not re.search(r"url\((?!#)|@import", html)


def test_its_policy_allows_its_own_script_and_style_alone(whole: tuple[str, Markup]) -> None:
    _, page = whole
    (policy,) = [m["content"] for m in page.of("meta") if "http-equiv" in m]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"]

    def digest(text: str) -> list[str]:
        return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"]

    assert rules["script-src"] == digest("".join(page.scripts))
    assert rules["style-src"] == digest("".join(page.styles))
    assert set(rules) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}


def test_identifiers_are_unique_and_lead_somewhere(whole: tuple[str, Markup]) -> None:
    _, page = whole
    counts = Counter(a["id"] for _, a in page.elements if "id" in a)
    assert [name for name, count in counts.items() if count > 1] == []
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "href", "clip-path"):
            for each in attributes.get(name, "").split():
                target = re.sub(r"^url\(#|^#|\)$", "", each)
                assert target in counts, attributes


def test_figures_have_words_and_tables(whole: tuple[str, Markup]) -> None:
    html, page = whole
    figures = re.findall(r"<figure.*?</figure>", html, flags=re.DOTALL)
    assert len(figures) >= 10
    for figure in figures:
        inside = Markup(figure)
        images = [svg for svg in inside.of("svg") if svg.get("role") == "img"]
        assert images
        for image in images:
            title, described = image["aria-labelledby"].split()
            text = re.search(rf'<desc id="{described}">(.*?)</desc>', figure)
            assert text is not None
            assert len(text[1]) > 20
            assert f'<title id="{title}">' in figure
        others = [svg for svg in inside.of("svg") if svg.get("role") != "img"]
        assert all(svg["aria-hidden"] == "true" for svg in others)
        assert "<details>" in figure
        assert len(inside.of("table")) == 1
    assert len(page.of("h1")) == 1
    assert len(page.of("main")) == 1
    assert page.of("html")[0]["lang"] == "en"


def test_colours_come_from_the_style_sheet(whole: tuple[str, Markup]) -> None:
    """Both tones of every figure: no colour of matplotlib is left in an image."""
    html, page = whole
    for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", html))
    light, dark = re.findall(r":root \{(.*?)\}", "".join(page.styles), flags=re.DOTALL)
    for tones in (light, dark):
        assert used <= set(re.findall(r"(--[a-z0-9]+):", tones))


def test_tables_name_rows_and_columns_and_hold_what_is_sorted_by(
    whole: tuple[str, Markup],
) -> None:
    html, _ = whole
    for table in re.findall(r"<table class=\"sortable\">.*?</table>", html, flags=re.DOTALL):
        inside = Markup(table)
        assert len(inside.of("caption")) == 1
        header, *body = inside.cells
        assert {th.get("scope") for th in inside.of("th")} == {"col", "row"}
        assert all(len(row) == len(header) for row in body)
        cells = [a for tag, a in inside.elements if tag == "td"]
        assert all("data-value" in each for each in cells)
        assert len(cells) == len(body) * (len(header) - 1)


def test_all_that_was_found_is_on_it(whole: tuple[str, Markup]) -> None:
    _, page = whole
    for text in (
        "2 seeds are too few to tell", "0123456789ab", "Try balancing", "The model hardly uses",
        "probe: 50.0 [48.0, 52.0]", "weight_decay", "2.13.0", "What each modality adds",
        "Where each modality leads", "led by", "Discrepancy ratio over time",
        "Coefficient over time", "equimodal compare watch", "seconds of a training step",
    ):  # fmt: skip
        assert text in page.text, text
    assert page.text.index("too few to tell") < page.text.index("Results")
    assert "Read with care" not in page.text


@pytest.mark.parametrize("text", HOSTILE)
def test_names_cannot_be_markup(tmp_path: Path, text: str) -> None:
    names = (f"one{text}", f"two{text}")
    entries = [
        Entry("joint", "joint"),
        Entry(f"label{text}".replace("/", "").replace("\x00", "").replace("\ud800", ""), "joint"),
    ]
    comparison(tmp_path, names, entries, data=f"data{text}")
    for path in tmp_path.glob("runs/*/result.json"):
        change(path, method=text, versions={text: text}, data=f"data{text}")
    change(
        tmp_path / "comparison.json",
        versions={text: text}, fingerprint=f"print{text}", settings={text: text},
    )  # fmt: skip
    for path in tmp_path.glob("runs/*/result.json"):
        change(path, fingerprint=f"print{text}")
    (tmp_path / "runs" / "broken-seed-1-abcdef").mkdir()
    (tmp_path / "runs" / "broken-seed-1-abcdef" / "result.json").write_text("{")
    found = diagnosis(names, [f"class{text}", "b", "c"], data=text)
    found["model"] = found["advice"]["summary"] = found["advice"]["verdict"] = text
    found["advice"]["because"] = [{"text": text, "evidence": {text: text}}]
    found["advice"]["next"] = found["advice"]["ignored"] = [text]
    found["curves"] = {text: {name: [1.0, 2.0] for name in names}}
    found["cost"] = {text: 1.0}
    html, page = markup_of(tmp_path, found)
    plain = markup_of_plain()
    assert Counter(tag for tag, _ in page.elements).keys() <= plain
    assert len(page.of("script")) == len(page.of("style")) == 1
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    shown = text.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
    assert shown in page.text  # as it is
    assert len(re.findall(r"<text[^>]*>one", html)) > 2  # in figures too
    html.encode()


def markup_of_plain() -> set[str]:
    """The elements that a page may have."""
    return {
        "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "h4", "p",
        "dl", "div", "dt", "dd", "small", "nav", "ul", "li", "a", "main", "section", "figure",
        "figcaption", "span", "svg", "path", "desc", "g", "defs", "use", "text", "tspan",
        "clippath", "rect", "details", "summary", "table", "caption", "thead", "tr", "th", "tbody",
        "td", "pre", "code", "strong", "footer", "script",
    }  # fmt: skip


def test_what_is_missing_stands_at_the_top(tmp_path: Path) -> None:
    runs = comparison(tmp_path, MODALITIES, ENTRIES)
    path = tmp_path / "runs" / runs[-1].name / "result.json"
    path.write_text(path.read_text()[:100])
    change(tmp_path / "runs" / runs[1].name / "result.json", test__macro_f1=float("nan"))
    found = diagnosis()
    found["agreement"]["per_class"]["row"] = {"samples": 0, "both": float("nan"), "only": {}}
    found["accuracy"] = float("nan")
    html, page = markup_of(tmp_path, found)
    (box,) = re.findall(r'<div class="notices".*?</div>', html, flags=re.DOTALL)
    assert html.index(box) < html.index("<main>")
    for text in (
        "5 of 6 runs are finished (1 damaged)", "ogm (seed 1): result.json cannot be used",
        "joint (seed 0): test/macro_f1 is not a number", "no sample of row was evaluated",
        "Diagnosis: not a number: accuracy", "plan.json",
    ):  # fmt: skip
        assert text in box, text
    assert "Where each modality leads" in page.text
    assert ["ogm (alpha 0.3)", "1", "damaged", "", "", "", "", "", "", ""] in page.cells


def test_a_comparison_that_has_hardly_begun_is_reported(tmp_path: Path) -> None:
    comparison(tmp_path, plan=True, entries=[Entry("joint", "joint")], left=["joint"])
    _, page = markup_of(tmp_path)
    assert "No run is finished yet" in page.text
    assert "0 of 2 runs are finished (2 not begun)" in page.text
    assert "watch: a comparison without a result" in page.text


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1, "advice": 7}'])
def test_a_diagnosis_that_cannot_be_used_leaves_the_results(tmp_path: Path, text: str) -> None:
    comparison(tmp_path, MODALITIES, ENTRIES, plan=True)
    (tmp_path / "diagnosis.json").write_text(text)
    html = rendered(page_of(read(tmp_path), read_findings(tmp_path / "diagnosis.json")))
    page = Markup(html)
    assert ("The diagnosis diagnosis.json cannot be used" in page.text) == ("1, " not in text)
    assert "Results" in page.text
    assert "Advice" not in page.text


def test_a_diagnosis_of_other_data_is_said(tmp_path: Path) -> None:
    comparison(tmp_path, MODALITIES, ENTRIES, plan=True)
    _, page = markup_of(tmp_path, diagnosis(data="mfeat"))
    assert "The diagnosis is of other data: mfeat, not watch." in page.text


def test_a_single_run_has_its_page_and_figures(tmp_path: Path) -> None:
    result(Run("ogm", "ogm", {}, 0), MODALITIES).save(tmp_path / "result.json")
    (tmp_path / "run.json").write_text(
        json.dumps({"data": "watch", "method": "OGM(alpha=0.3)", "modalities": MODALITIES})
    )
    written = write_report(tmp_path)
    assert written.page == tmp_path / "report.html"
    page = Markup(written.page.read_text())
    assert "watch: one run of OGM" in page.text
    assert "It is one run with one seed" in page.text
    assert "report-figures" in page.text
    names = {path.name for path in written.figures}
    assert names == {
        f"{name}-{width}.{kind}"
        for name in ("learning", "ratio", "coefficient")
        for width in ("single", "double")
        for kind in ("svg", "pdf")
    }
    assert {path.name for path in (tmp_path / "report-figures").iterdir()} == names
    again = page_of(read(tmp_path), Findings({}))
    assert rendered(replace(again, files="report-figures")) == written.page.read_text()


def test_a_diagnosis_that_is_named_must_be_there(tmp_path: Path) -> None:
    comparison(tmp_path, MODALITIES, ENTRIES)
    with pytest.raises(SetupError, match="expected a diagnosis"):
        write_report(tmp_path, diagnosis=tmp_path / "absent.json")
    assert not (tmp_path / "report.html").exists()


def test_a_run_is_held_against_the_models_alone_of_its_diagnosis(tmp_path: Path) -> None:
    result(Run("ogm", "ogm", {}, 0), MODALITIES).save(tmp_path / "result.json")
    about = {"data": "watch", "method": "OGM()", "modalities": MODALITIES}
    (tmp_path / "run.json").write_text(json.dumps(about))
    _, without = markup_of(tmp_path)
    _, page = markup_of(tmp_path, diagnosis())
    assert "a model of its own" not in without.text
    assert "a model of its own" in page.text
    assert "Alone: accelerometer 70.0 and gyroscope 70.0." in page.text
