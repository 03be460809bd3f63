"""A report, read for tests."""

from html.parser import HTMLParser
from pathlib import Path

from matplotlib.figure import Figure

VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """A page's elements as (tag, attributes), and its text by the id of the section that it stands in."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.section, self.texts = "", {"": ""}
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open += [] if tag in VOID else [tag]
        if tag == "section":
            self.section = dict(attributes)["id"]
            self.texts[self.section] = ""

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts[self.section] += f"{data} "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, section: str = "") -> str:
        return " ".join(self.texts[section].split())


def legends(page: Page) -> list[str]:
    """The signs of the legends, in order."""
    return [a["class"] for a in page.all("i")]


def drawn(paint, *arguments, **options):
    """The axes into which a chart was painted."""
    axes = Figure().add_axes((0, 0, 1, 1))
    paint(axes, *arguments, **options)
    return axes
