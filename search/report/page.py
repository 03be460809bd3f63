"""The pieces of a report: one page of HTML without scripts that loads nothing. All texts they take are HTML already."""

import json
import time
from collections.abc import Sequence
from html import escape
from typing import Any

from .charts import COLOURS

STYLE = """
*, ::before, ::after { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--surface); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1rem 0 .5rem }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--grid) }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem }
sup { line-height: 0 }
p { max-width: 46rem; margin: .5rem 0 }
a { color: var(--search) }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem }
footer, figcaption, caption, dt, .legend { color: var(--muted); font-size: .875rem }
footer { margin: 3rem 0 1rem }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin: 1rem 0 }
.tiles div { padding: .6rem .8rem; border: 1px solid var(--grid); border-radius: .5rem }
.tiles dd { margin: 0; font-size: .875rem; line-height: 1.35 }
.tiles b { display: block; font-size: 1.35rem; font-weight: 600; line-height: 1.4 }
figure { margin: 1rem 0; min-width: 0 }
figure svg { display: block; width: 100%; height: auto }
svg text { font-family: inherit !important }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 0 1.5rem }
.narrow { display: none }
@media (max-width: 640px) { .narrow { display: block } .wide { display: none } }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 0 0 .25rem; padding: 0; list-style: none }
.legend i { display: inline-block; vertical-align: middle; width: 1.5rem; margin-right: .4rem;
  border-top: 2px solid var(--colour) }
.legend .dash { border-top-style: dashed }
.legend .dot { width: .5rem; height: .5rem; border: 0; border-radius: 50%; background: var(--colour); opacity: .5 }
.legend .tick { width: 0; height: .7rem; border: 0; border-left: 1.5px solid var(--colour) }
.search { --colour: var(--search) } .baseline { --colour: var(--baseline) } .failed { --colour: var(--failed) }
.scroll { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums }
caption { text-align: left; padding-bottom: .25rem }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--grid); text-align: left; vertical-align: top;
  overflow-wrap: normal }
th { color: var(--muted); font-weight: 600; white-space: nowrap }
td code { display: block; max-width: 15rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
pre { overflow-x: auto; max-height: 24rem; padding: .75rem; border: 1px solid var(--grid); border-radius: .5rem;
  font-size: .8rem; line-height: 1.4; white-space: pre-wrap }
summary { cursor: pointer }
.drawing svg { display: block; width: 100%; min-width: 44rem; height: auto; border-radius: .5rem }
@media (prefers-color-scheme: dark) { .drawing svg { filter: invert(.92) hue-rotate(180deg) } }
"""


def page(title: str, header: str, sections: dict[str, str]) -> str:
    """A whole page: the header's HTML under the title, and the sections by heading; empty ones are left out."""
    shown = {heading: body for heading, body in sections.items() if body}
    anchors = {heading: heading.lower().replace(" ", "-") for heading in shown}
    links = "".join(f'<a href="#{anchors[heading]}">{heading}</a>' for heading in shown)
    bodies = "\n".join(f'<section id="{anchors[h]}"><h2>{h}</h2>{body}</section>' for h, body in shown.items())
    light, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1))
    colours = f":root{{color-scheme:light dark;{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{colours}{STYLE}</style>
</head>
<body>
<header><h1>{title}</h1>{header}<nav aria-label="Sections">{links}</nav></header>
<main>
{bodies}
</main>
<footer>Written by nasnet_zoo on {time.strftime("%Y-%m-%d at %H:%M %Z")}.</footer>
</body>
</html>
"""


def tiles(rows: Sequence[tuple[str, str, str]]) -> str:
    """Figures at a glance: what it is, the figure, and what to know about it."""
    return f"<dl class=tiles>{''.join(f'<div><dt>{a}</dt><dd><b>{b}</b>{c}</dd></div>' for a, b, c in rows)}</dl>"


def figure(svg: str, caption: str = "", legend: Sequence[tuple[str, str]] = ()) -> str:
    """A chart. An entry of the legend has the classes of its sign ("line", "dash", "dot" or "tick", and whose) and
    what the sign means."""
    entries = "".join(f'<li><i class="{sign}"></i>{text}</li>' for sign, text in legend)
    above = f"<ul class=legend>{entries}</ul>" if legend else ""
    return f"<figure>{above}{svg}<figcaption>{caption}</figcaption></figure>"


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th scope=col>{text}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    parts = f"<caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return scroll(f"<table>{parts}</table>", caption)


def scroll(body: str, label: str, extra: str = "") -> str:
    """What may be wider than the page: it scrolls by itself, by keyboard too."""
    return f'<div class="scroll {extra}" tabindex=0 role=region aria-label="{label}">{body}</div>'


def details(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>{body}</details>"


def as_json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1))}</pre>"


def number(value: float | int) -> str:
    """Four digits of a fraction, thousands with commas."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"
