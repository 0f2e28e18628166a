#!/usr/bin/python3
"""Draws benchmarks: JSON in (the last line of what a benchmark printed), SVG out.

  tests/bench/plot.py growth FILE.json > docs/growth.svg
  tests/bench/plot.py before-after FILE.json > docs/before-after.svg

growth: one panel for each thing that could grow with the fleet. before-after: one row of bars for each thing that the two designs are compared by, each row with a scale of its own.
"""
import json
import math
import sys
from xml.sax.saxutils import escape

INK, QUIET, GRID = "#1f2328", "#59636e", "#d1d9e0"
COLOURS = ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#9a6700", "#cf222e"]  # apart in lightness as well as in hue
WIDTH, HEIGHT = 440, 250  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 56, 110, 34, 44  # inside it


def short(value):
    """A number as a label: 15k, 0.12, 1.5M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def text(x, y, said, anchor="start", colour=QUIET, size=11, weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}" font-weight="{weight}">{escape(said)}</text>'


def line(x1, y1, x2, y2, colour=GRID):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def ceiling(value):
    """The next round number."""
    if value <= 0:
        return 1
    unit = 10 ** math.floor(math.log10(value))
    return next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= value)


def apart(labels, lowest, gap=13):
    """[(y, …)] from bottom to top, moved up so that none covers another and none is below `lowest`."""
    placed = []
    for y, *rest in sorted(labels, reverse=True):
        placed.append((min(y, placed[-1][0] - gap if placed else lowest), *rest))
    return placed


def panel(x0, y0, title, unit, xs, series):
    """Lines over the number of agents, from zero on both axes, each named where it ends. series: {name: values}"""
    top = ceiling(max(max(values) for values in series.values()))
    right = ceiling(max(xs)) if max(xs) != 15000 else 15000
    left, low, wide, high = x0 + LEFT, y0 + HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x, y):
        return left + wide * x / right, low - high * y / top
    out = [text(x0 + 8, y0 + 16, title + (f", {unit}" if unit else ""), colour=INK, size=13, weight="bold")]
    for i in range(5):
        y = top * i / 4
        out += [line(left, at(0, y)[1], left + wide, at(0, y)[1]), text(left - 6, at(0, y)[1] + 4, short(y), "end")]
    out += [text(at(x, 0)[0], low + 16, short(x), "middle") for x in xs]
    out.append(text(left + wide, low + 30, "agents", "end"))
    ends = []
    for colour, (name, values) in zip(COLOURS, series.items(), strict=False):
        points = [at(x, y) for x, y in zip(xs, values, strict=True)]
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        ends.append((points[-1][1] + 4, points[-1][0] + 8, f"{name} {short(values[-1])}", colour))
    out += [text(x, y, said, colour=colour) for y, x, said, colour in apart(ends, low + 4)]
    return out


def document(width, height, body, title):
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="system-ui, sans-serif" role="img" aria-label="{escape(title)}">',
                      f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *body, "</svg>"])


def growth(result):
    fleets = result["fleets"]
    xs = [f["agents"] for f in fleets]
    parts = ("broker", "database", "gateway", "scheduler", "router")

    def each(read):
        return [read(f) for f in fleets]
    panels = [
        ("CPU, idle", "cores", {p: each(lambda f, p=p: f["idle"]["cpu_cores"][p]) for p in parts}),
        (f"CPU, {result['rate']} operations/s", "µs each", {p: each(lambda f, p=p: f["load"]["cpu_us_per_op"][p]) for p in parts}),
        ("Memory", "MiB", {p: each(lambda f, p=p: f["memory_bytes"][p] / 2**20) for p in parts}),
        ("Done after", "ms", {"p99": each(lambda f: f["load"]["end_p99_ms"]), "p50": each(lambda f: f["load"]["end_p50_ms"])}),
        ("Accepted after", "ms", {"p99": each(lambda f: f["load"]["accept_p99_ms"]), "p50": each(lambda f: f["load"]["accept_p50_ms"])}),
        ("The database", "", {"connections": each(lambda f: f["load"]["database_connections"]), "queries, idle": each(lambda f: f["idle"]["queries"]),
                              "queries each": each(lambda f: f["load"]["queries_per_op"])}),
    ]
    body = []
    for i, (title, unit, series) in enumerate(panels):
        body += panel(i % 2 * WIDTH, i // 2 * HEIGHT, title, unit, xs, series)
    return document(2 * WIDTH, (len(panels) + 1) // 2 * HEIGHT, body, "What grows with the fleet")


ROWS = [("database connections", "db_connections"), ("queries/s, idle", "queries_per_s_idle"), ("cores, idle", "cpu_cores_idle"), ("picked up, p50 ms", "pickup_p50_ms"),
        ("picked up, p99 ms", "pickup_p99_ms")]


def before_after(result):
    sides = [("polled", result["polling"], COLOURS[1]), ("Harpoon", result["harpoon"], COLOURS[0])]
    left, wide, row = 170, 480, 58
    body = [text(8, 20, f"{short(result['agents'])} hosts: a polled database, and Harpoon", colour=INK, size=13, weight="bold")]
    for i, (title, key) in enumerate(ROWS):
        y, most = 40 + i * row, max(side[key] for _, side, _ in sides) or 1
        body.append(text(left - 10, y + 22, title, "end", INK, 12))
        for k, (name, side, colour) in enumerate(sides):
            length = wide * side[key] / most
            body.append(f'<rect x="{left}" y="{y + k * 20}" width="{max(length, 1):.1f}" height="16" fill="{colour}"/>')
            body.append(text(left + max(length, 1) + 6, y + k * 20 + 13, f"{name} {short(side[key])}", colour=colour))
    return document(left + wide + 120, 40 + len(ROWS) * row, body, "A polled database and Harpoon")


def main(argv):
    kinds = {"growth": growth, "before-after": before_after}
    if len(argv) != 2 or argv[0] not in kinds:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    with open(argv[1]) as f:
        print(kinds[argv[0]](json.loads(f.read().rstrip().rpartition("\n")[2])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
