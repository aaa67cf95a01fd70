"""Tell what a browser would not show: by a style attribute, by simple rules of a <style> element, by attributes.

    is_hidden("p", {"style": "left: -9999px; position: absolute"})  →  True
    hidden_names(".note { font-size: 0 }")                          →  {".note"}

Injected instructions hide in such text. Panels that a reader opens (tabs, `hidden="until-found"`) are not hidden.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

Attributes = Mapping[str, str | None]

DROPPED = frozenset({"script", "style", "template", "noscript", "svg", "title", "iframe", "canvas", "noframes"})
"""Elements without readable text. `title` is all the text of a head, whose own end tag authors may leave out."""
SCREEN_READER_ONLY = frozenset({"sr-only", "visually-hidden", "visuallyhidden", "screen-reader-text", "show-for-sr"})
MAX_STYLE_CHARS = 200_000  # of a <style>; what follows is not read

_TOGGLED = re.compile(r"(?<![^\W_])(?:tab(?:s|bed|pane|panel|content)?(?![^\W_])|panel|accordion|collaps)", re.I)
_ZERO = re.compile(r"[+-]?0*\.?0*(?:px|em|rem|pt|%|vw|vh|ex|ch)?(?:\s*!important)?")
_FAR = re.compile(r"-\s*(?:[1-9]\d{2,}(?:\.\d*)?(?:px|em|rem|vw|vh|%))")
_CLIPPED = re.compile(r"rect\(\s*[01](?:px)?(?:[\s,]+[01](?:px)?){3}\s*\)|inset\(\s*(?:50|100)%")
_NO_SIZE = re.compile(r"[01](?:px)?\s*(?:!important)?")
_CONDITION = re.compile(r"@media[^{}@]{0,200}?(?:print|width|height|prefers)")
_SIMPLE = re.compile(r"(?:[a-z][a-z0-9]*)?([.#][\w-]+)")
_NAME = re.compile(r"[.#][\w-]+")
_HEX = re.compile(r"#([0-9a-f])([0-9a-f])([0-9a-f])")
_COLOURS = {"white": "#ffffff", "black": "#000000", "rgb(255,255,255)": "#ffffff", "rgb(0,0,0)": "#000000"}


def is_hidden(tag: str, attributes: Attributes) -> bool:
    """Tell whether the element, with all it holds, is not shown."""
    if tag in DROPPED:
        return True
    if not attributes:
        return False
    classes = attributes.get("class") or ""
    if not SCREEN_READER_ONLY.isdisjoint(classes.split()):
        return True
    is_closed = "hidden" in attributes and attributes["hidden"] != "until-found"
    if is_closed or attributes.get("aria-hidden") == "true":
        return not _is_panel(attributes, classes)
    style = attributes.get("style")
    return bool(style) and hides(style or "") and not _is_panel(attributes, classes)


def _is_panel(attributes: Attributes, classes: str) -> bool:
    return attributes.get("role") == "tabpanel" or _TOGGLED.search(classes) is not None


@lru_cache(maxsize=4096)
def hides(declarations: str) -> bool:
    """Tell whether CSS declarations leave nothing to see: no box, no size, no ink, or a place outside the window."""
    pairs = (declaration.lower().partition(":") for declaration in declarations.split(";"))
    style = {name.strip(): value.strip() for name, _, value in pairs}
    if style.get("display", "").startswith("none") or style.get("visibility", "").startswith(("hidden", "collapse")):
        return True
    if any(_ZERO.fullmatch(style.get(name) or "1") for name in ("opacity", "font-size")):
        return True
    return _is_clipped(style) or _is_off_screen(style) or _is_without_ink(style)


def _is_clipped(style: Mapping[str, str]) -> bool:
    if any(_CLIPPED.match(style.get(name, "")) for name in ("clip", "clip-path")):
        return True
    sizes = (style.get(name, "") for name in ("width", "height", "max-width", "max-height"))
    is_tiny = any(_NO_SIZE.fullmatch(size) for size in sizes)
    return is_tiny and style.get("overflow", "").startswith(("hidden", "clip"))


def _is_off_screen(style: Mapping[str, str]) -> bool:
    if _FAR.match(style.get("text-indent", "")) or style.get("transform", "").startswith("scale(0)"):
        return True
    is_placed = style.get("position", "").startswith(("absolute", "fixed"))
    sides = ("left", "top", "right", "bottom") if is_placed else ()
    return any(_FAR.match(style.get(side, "")) for side in (*sides, "margin-left", "margin-top"))


def _is_without_ink(style: Mapping[str, str]) -> bool:
    ink = _colour(style.get("color", ""))
    ground = _colour(style.get("background-color", "") or style.get("background", ""))
    return ink == "transparent" or (bool(ink) and ink == ground)


def _colour(value: str) -> str:
    plain = value.replace("!important", "").replace(" ", "")
    short = _HEX.fullmatch(plain)
    return f"#{short[1] * 2}{short[2] * 2}{short[3] * 2}" if short else _COLOURS.get(plain, plain)


def hidden_names(css: str) -> frozenset[str]:
    """Return `.class` and `#id` names that a rule of their own hides, unless another rule may show them again."""
    hidden: set[str] = set()
    shown: set[str] = set()
    for selectors, declarations in _rules(css[:MAX_STYLE_CHARS]):
        if hides(declarations):
            simple = (_SIMPLE.fullmatch(selector.strip()) for selector in selectors.split(","))
            hidden.update(match[1] for match in simple if match)
        elif any(word in declarations for word in ("display", "visibility", "opacity", "font-size", "left")):
            shown.update(_NAME.findall(selectors))
    return frozenset(name for name in hidden - shown if not _TOGGLED.search(name))


def _rules(css: str) -> Iterator[tuple[str, str]]:
    """Yield (selectors, declarations) of all rules but those for print or for some sizes of a window."""
    first, *others = css.split("/*")
    depth, is_conditional = 0, False
    for block in "".join([first, *(other.partition("*/")[2] for other in others)]).split("}"):
        prelude, _, declarations = block.rpartition("{")
        outer, _, selectors = prelude.rpartition("{")
        is_conditional = is_conditional or _CONDITION.search(outer) is not None
        depth = max(0, depth + block.count("{") - 1)
        if not is_conditional:
            yield selectors, declarations
        is_conditional = is_conditional and depth > 0
