"""The page: one HTML file that loads nothing and runs nothing but its own few lines."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from equimodal import __version__
from equimodal.report.findings import Reason
from equimodal.report.picture import DASHES, Cell, Key, Picture, Table
from equimodal.report.svg import TONES, inline
from equimodal.system.extras import require

require("report", "jinja2")

import jinja2  # noqa: E402
from markupsafe import Markup, escape  # noqa: E402 (comes with jinja2)

MARKS = {  # of the legend, in a box of 30 by 14
    "o": "M11 7a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "s": "M11 3h8v8h-8z",
    "D": "M15 2l5 5l-5 5l-5 -5z",
    "^": "M15 2l5 9h-10z",
    "v": "M15 12l5 -9h-10z",
    "P": "M13 2h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    "X": "M10 4l2 -2l3 3l3 -3l2 2l-3 3l3 3l-2 2l-3 -3l-3 3l-2 -2l3 -3z",
}


@dataclass(frozen=True)
class Advice:
    """What a diagnosis ends with."""

    verdict: str
    summary: str
    ignored: Sequence[str]
    reasons: Sequence[Reason]
    next: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: in addresses.
        title: its heading.
        text: below the heading.
        pictures: its figures.
        tables: its tables.
        folded: whether the tables are closed at first.
        advice: of a diagnosis.
    """

    name: str
    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    folded: bool = False
    advice: Advice | None = None


@dataclass(frozen=True)
class Page:
    """What the page says.

    Attributes:
        title: what it is about.
        subtitle: data and splits.
        verdict: the sentence that comes first.
        elaboration: what follows it.
        notices: what is missing or wrong.
        facts: single numbers with their names.
        caution: on the verdict.
        sections: in their order; those without content are left out.
        command: that repeats the results, if there is one.
        remark: on the command.
        terms: how the numbers were measured.
        made: settings and versions: tables of names and values, by caption.
        files: where the figures for a paper are.
    """

    title: str
    subtitle: str
    verdict: str
    elaboration: str = ""
    notices: Sequence[str] = ()
    facts: Sequence[tuple[str, Cell]] = ()
    caution: str = ""
    sections: Sequence[Section] = ()
    command: str = ""
    remark: str = ""
    terms: Sequence[str] = ()
    made: Sequence[tuple[str, Sequence[tuple[str, str]]]] = field(default_factory=tuple)
    files: str = ""


def rendered(page: Page) -> str:
    """Return the page as HTML.

    All text is escaped, in figures too. The policy names the one script and the one style sheet by
    their digests: nothing else runs, and nothing is loaded, whatever the text holds.
    """
    css, js = _own("page.css"), _own("page.js")
    policy = (
        f"default-src 'none'; script-src '{_digest(js)}'; style-src '{_digest(css)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_own("page.html.j2"))
    return template.render(
        **{
            **vars(page),
            "sections": [_shown(each) for each in page.sections if _holds(each)],
            "css": Markup(css),
            "js": Markup(js),
            "policy": policy,
            "version": __version__,
        }
    )


def _holds(section: Section) -> bool:
    return bool(section.pictures or section.tables or section.advice)


def _shown(section: Section) -> dict[str, Any]:
    """Add to a section the images of its figures."""
    shown = [
        {
            "picture": picture,
            "wide": any(panel.wide for panel in picture.panels),
            "legend": [{"label": key.label, "mark": _mark(key)} for key in picture.keys],
            "images": [
                (panel.title, Markup(inline(panel, f"{picture.name}-{n}", _text(picture, n))))
                for n, panel in enumerate(picture.panels)
            ],
        }
        for picture in section.pictures
    ]
    return {**vars(section), "shown": shown}


def _text(picture: Picture, number: int) -> str:
    """Return the text alternative of a panel: the first one has that of the whole figure."""
    if number == 0:
        return f"{picture.described} The table below the figure has the numbers."
    return f"{picture.title}: {picture.panels[number].title}. See the table below the figure."


def _mark(key: Key) -> Markup:
    tone = escape(TONES.get(key.colour.lower(), key.colour))
    if key.line:
        drawn = Markup(
            '<path d="M1 7h28" fill="none" stroke="{}" stroke-width="2.5" stroke-dasharray="{}"/>'
        ).format(tone, DASHES.get(key.line, ""))
    else:
        shape = MARKS.get(key.marker, "M8 1h14v12h-14z")
        drawn = Markup('<path d="{}" fill="{}"/>').format(shape, tone)
    return Markup('<svg viewBox="0 0 30 14" aria-hidden="true">{}</svg>').format(drawn)


def _own(name: str) -> str:
    """Return a file of this package, with the ends of lines that a browser sees."""
    text = resources.files("equimodal.report").joinpath(name).read_text(encoding="utf-8")
    return "\n".join(text.splitlines()) + "\n"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
