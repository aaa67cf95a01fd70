"""Elements → a whole page, without scripts, that says what it is. Text is escaped by the serialiser."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from starlette.responses import HTMLResponse

NOTE = "Raydex charts, drawn from {source}. This is not Grafana."
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing is loaded and nothing runs. Who may frame the page is open: Ray's dashboard does, at any address."""

STYLE = """
:root { color-scheme: light; --ink: #1f2328; --paper: #fff; --faint: #6e7781; --edge: #d0d7de }
.dark { color-scheme: dark; --ink: #e6edf3; --paper: #111217; --faint: #8b949e; --edge: #30363d }
html { background: var(--paper); color: var(--ink); font: 13px/1.4 system-ui, sans-serif }
body { margin: 0 8px 8px }
h1 { font-size: 18px; margin: 8px 0 } h2 { font-size: 15px; margin: 16px 0 4px } h3 { font-size: 13px; margin: 0 0 4px }
.note, .quiet { color: var(--faint) } .failed { color: #cf222e } .note { font-size: 11px; margin: 2px 0 }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 8px }
.alone main { display: block } h2, .boards, table { grid-column: 1 / -1 }
section { border: 1px solid var(--edge); border-radius: 4px; padding: 6px 8px; min-width: 0 }
.alone section { border: 0; padding: 0 }
figure { margin: 0 } svg { width: 100%; max-height: 300px; display: block }
svg text { font-size: 11px; fill: var(--faint) } .grid { stroke: var(--edge); stroke-width: 1 }
.line { fill: none; stroke-width: 1.5; stroke-linejoin: round; stroke-linecap: round }
figure ul { list-style: none; margin: 2px 0 0; padding: 0; max-height: 6.5em; overflow: auto; font-size: 12px }
figure li { display: inline-flex; gap: 5px; align-items: center; margin-right: 14px }
.key { width: 10px; height: 3px }
table { border-collapse: collapse } td { border: 1px solid var(--edge); padding: 2px 8px }
a { color: inherit }
"""


def page(
    title: str, parts: Sequence[Element], *, dark: bool, alone: bool, refresh_s: int, source: str = "Prometheus"
) -> Element:
    """alone: one panel in a frame, without a heading. refresh_s: 0 for never."""
    html = Element("html", {"lang": "en", "class": "dark" if dark else "light"})
    head = SubElement(html, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width"})
    if refresh_s:
        SubElement(head, "meta", {"http-equiv": "refresh", "content": str(refresh_s)})
    SubElement(head, "title").text = title
    SubElement(head, "style").text = STYLE
    body = SubElement(html, "body", {"class": "alone" if alone else "board"})
    if not alone:
        SubElement(body, "h1").text = title
    main = SubElement(body, "main")
    main.extend(parts)
    SubElement(body, "p", {"class": "note"}).text = f"{NOTE.format(source=source)} Times are UTC."
    return html


def render(html: Element) -> HTMLResponse:
    return HTMLResponse(
        "<!doctype html>\n" + tostring(html, encoding="unicode", method="html"),
        headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"},
    )
