"""Lines over time → SVG, drawn here: no script, no font, no address outside the page.

    Line, … → chart(title, lines, unit=…, start=…, end=…) → an <svg> element with its legend

Elements are built as a tree, so that no text can become markup, whatever a label says.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 8, 22
MOST_TICKS = 6
GAP_STEPS = 1.5
"""A line is broken where more than so many steps have no value."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f", "#9467bd", "#bcbd22")
"""Okabe and Ito's, told apart by most colour-blind people, and four more."""

SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((86400, " d"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")),
    "bytes": ((2**40, " TiB"), (2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")),
    "short": ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, "")),
    "percentunit": ((0.01, " %"),),
}
SAME_AS = {"seconds": "s", "Bps": "bytes", "": "short", "none": "short", "units": "short"}
MINUTE, HOUR, DAY = 60, 3600, 86400
TIME_STEPS_S = (
    *(1, 2, 5, 10, 15, 30),
    *(times * MINUTE for times in (1, 2, 5, 10, 15, 30)),
    *(times * HOUR for times in (1, 2, 3, 6, 12)),
    *(times * DAY for times in (1, 2, 7)),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line. points: (seconds since 1970, value), oldest first; a value that is no number is a gap."""

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        return next((value for _, value in reversed(self.points) if math.isfinite(value)), math.nan)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a moment and a value stand in the picture."""

    start: float
    end: float
    low: float
    high: float

    def x(self, moment: float) -> float:
        return LEFT + (moment - self.start) / (self.end - self.start) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def chart(title: str, lines: Sequence[Line], *, unit: str, start: float, end: float, step_s: float) -> Element:
    """Return a <figure> with the picture and the legend: name and last value of each line."""
    ticks = value_ticks([value for line in lines for _, value in line.points if math.isfinite(value)], unit)
    frame = Frame(start, end, min(0.0, ticks[0]), ticks[-1])
    figure = Element("figure")
    told = ", ".join(f"{line.name or 'value'} {written(line.last, unit)}" for line in lines)
    picture = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": f"{title}: {told}"}
    svg = SubElement(figure, "svg", picture)
    for value in ticks:
        y = f"{frame.y(value):.1f}"
        SubElement(svg, "line", {"class": "grid", "x1": str(LEFT), "x2": str(WIDTH - RIGHT), "y1": y, "y2": y})
        _text(svg, written(value, unit, of=ticks[-1]), LEFT - 6, frame.y(value) + 3, "end")
    for moment, text in time_ticks(start, end):
        _text(svg, text, frame.x(moment), HEIGHT - 6, "middle")
    for line, colour in zip(lines, _colours(), strict=False):
        path = SubElement(svg, "path", {"d": _path(line.points, frame, step_s), "stroke": colour, "class": "line"})
        SubElement(path, "title").text = f"{line.name}: {written(line.last, unit)}"
    figure.append(_legend(lines, unit))
    return figure


def value_ticks(values: Sequence[float], unit: str) -> list[float]:
    """Return round numbers from 0 (or below the least value) to above the greatest, at most 6 of them."""
    low, high = min([0.0, *values]), max([0.0, *values])
    if high == low:
        high = low + (0.01 if _kind(unit) == "percentunit" else 1.0)
    divisor = _scale(max(high, -low), unit)[0]
    step = _round_step((high - low) / divisor / (MOST_TICKS - 1)) * divisor
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def time_ticks(start: float, end: float) -> Iterator[tuple[float, str]]:
    """Yield (moment, text in UTC) of at most 6 round moments."""
    wanted = (end - start) / MOST_TICKS
    step = next((step for step in TIME_STEPS_S if step >= wanted), math.ceil(wanted / (7 * DAY)) * 7 * DAY)
    form = "%H:%M:%S" if step < MINUTE else "%H:%M" if step < DAY else "%d %b"
    for number in range(math.ceil(start / step), math.floor(end / step) + 1):
        yield number * step, datetime.fromtimestamp(number * step, UTC).strftime(form)


def written(value: float, unit: str, *, of: float | None = None) -> str:
    """Return a value as people read it: 0.0032 s is 3.2 ms. of: the value that decides the scale, else its own."""
    if not math.isfinite(value):
        return "–"
    divisor, suffix = _scale(abs(value if of is None else of), unit)
    return f"{value / divisor:.4g}{suffix}"


def _scale(size: float, unit: str) -> tuple[float, str]:
    if unit in {"percent", "%"}:
        return 1, " %"
    if unit == "ms":
        divisor, suffix = _scale(size / 1000, "s")
        return divisor * 1000, suffix
    kind = _kind(unit)
    per_second = "/s" if unit == "Bps" else ""
    if kind in SCALES:
        found = next(((divisor, suffix) for divisor, suffix in SCALES[kind] if size >= divisor), None)
        divisor, suffix = found or (SCALES[kind][-1] if size else next(s for s in SCALES[kind] if s[0] <= 1))
        return divisor, suffix + per_second
    divisor, suffix = _scale(size, "short")
    return divisor, f"{suffix} {unit}"


def _kind(unit: str) -> str:
    return SAME_AS.get(unit, unit)


def _round_step(rough: float) -> float:
    """Return the least of 1, 2, 2.5, 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(times * power for times in (1, 2, 2.5, 5, 10) if times * power >= rough * (1 - 1e-9))


def _path(points: Sequence[tuple[float, float]], frame: Frame, step_s: float) -> str:
    parts, before = [], -math.inf
    for moment, value in points:
        if not math.isfinite(value):
            continue
        joined = moment - before <= GAP_STEPS * step_s
        parts.append(f"{'L' if joined else 'M'}{frame.x(moment):.1f} {frame.y(value):.1f}{'' if joined else 'h0'}")
        before = moment
    return "".join(parts)


def _legend(lines: Sequence[Line], unit: str) -> Element:
    legend = Element("ul")
    for line, colour in zip(lines, _colours(), strict=False):
        item = SubElement(legend, "li")
        SubElement(item, "span", {"class": "key", "style": f"background:{colour}"})
        SubElement(item, "span").text = line.name or "value"
        SubElement(item, "b").text = written(line.last, unit)
    return legend


def _text(svg: Element, text: str, x: float, y: float, anchor: str) -> None:
    SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}).text = text


def _colours() -> Iterator[str]:
    while True:
        yield from COLOURS
