"""Makes the report's page from its content; templates/ decides how it looks."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .charts import COLOURS


def number(value: float | int) -> str:
    """Four digits of a fraction, thousands with commas."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"


# Every text is escaped, unless it is Markup. A name that is not there is an error, not a gap in the page.
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["number"] = number


def render(**parts: Any) -> str:
    """The page as HTML. The parts are plain data, and charts as Markup; see report.html.j2 for their names."""
    return TEMPLATES.get_template("report.html.j2").render(colours=COLOURS, **parts)
