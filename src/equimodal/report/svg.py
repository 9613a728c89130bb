"""From a figure to SVG that stands in a page and takes the page's colours."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

from equimodal.report.curves import COLOURS
from equimodal.report.picture import GRID, PALE, QUIET, STYLE, Panel

WIDTH = 3.4  # inches; a phone shows them a third larger
FONT = 8
# The page's style sheet has two tones of each: for light and for dark.
TONES = {
    COLOURS[0].lower(): "currentColor",
    **{colour.lower(): f"var(--s{number})" for number, colour in enumerate(COLOURS) if number},
    QUIET: "var(--quiet)",
    PALE: "var(--pale)",
    GRID: "var(--grid)",
    "#ffffff": "var(--paper)",
}
LINK = "{http://www.w3.org/1999/xlink}href"
FAMILY = re.compile(r"(?P<size>[\d.]+)px .*$")


def inline(panel: Panel, name: str, described: str) -> str:
    """Draw a panel as the markup of an SVG image.

    It holds no style attribute, which the page's policy would not allow, and its identifiers are
    its own among those of the page. The figure's text is the page's text.

    Args:
        panel: what to draw.
        name: for identifiers; another for every image of the page.
        described: the text alternative.
    """
    with mpl.rc_context({**STYLE, "font.size": FONT, "svg.fonttype": "none"}):
        figure = Figure(figsize=(WIDTH, panel.height), layout="constrained")
        axes = figure.add_subplot()
        panel.draw(axes)
        for part in (figure, axes):
            part.patch.set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    return _markup(root, name, panel.title, described)


def _markup(root: ElementTree.Element, name: str, title: str, described: str) -> str:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = dict(element.attrib)
        element.attrib.clear()
        for key, value in attributes.items():
            if key == "style":
                element.attrib.update(_presented(value, name))
            elif key == "id":
                element.set("id", f"{name}-{value}")
            elif key == LINK:
                element.set("href", value.replace("#", f"#{name}-", 1))
            elif key == "clip-path":
                element.set(key, value.replace("#", f"#{name}-", 1))
            else:
                element.set(key, value)
    box = root.get("viewBox", "0 0 1 1")
    root.attrib.clear()
    root.attrib |= {
        "viewBox": box,
        "fill": "currentColor",  # black is what matplotlib does not write
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
    }
    for position, (tag, text) in enumerate((("title", title), ("desc", described))):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(position, element)
    return ElementTree.tostring(root, encoding="unicode")


def _presented(style: str, name: str) -> dict[str, str]:
    """Return a style as attributes, in the page's colours and font."""
    found = {}
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in ("fill", "stroke"):
            found[key] = TONES.get(value.lower(), value)
        elif key == "font":
            found["font-size"] = FAMILY.sub(r"\g<size>", value).rpartition(" ")[2]
            if value.startswith(("bold", "700")):
                found["font-weight"] = "bold"
        elif key == "clip-path":
            found[key] = value.replace("#", f"#{name}-", 1)
        elif key and not key.startswith("font-family"):
            found[key] = value
    return found
