"""SVG with nothing but the standard library: horizontal bars in groups, and a line over sizes. Light and dark."""

import math
from html import escape

STYLE = """<style>
.back { fill: #ffffff } .grid { stroke: #d9dde2; stroke-width: 1 } .whisker { stroke: #1f2328; stroke-width: 1.5 }
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-size: 16px; font-weight: 600 }
.head { font-weight: 600 } .dim { fill: #59636e; font-size: 12px }
.end { text-anchor: end } .middle { text-anchor: middle }
.bk { fill: #0b68cb } .peer { fill: #a3adb8 } .roof { fill: #d08a1d }
.fit { stroke: #d08a1d; stroke-width: 2; fill: none }
@media (prefers-color-scheme: dark) {
.back { fill: #0d1117 } .grid { stroke: #30363d } .whisker { stroke: #e6edf3 }
text { fill: #e6edf3 } .dim { fill: #9198a1 }
.bk { fill: #58a6ff } .peer { fill: #6e7681 } .roof { fill: #e3a341 } .fit { stroke: #e3a341 } }
</style>"""

WIDTH = 820
LEFT = 230
RIGHT = 90
BAR = 16
STEP = 24


def text(x, y, words, kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(words)}</text>'


def line(x1, y1, x2, y2, kind="grid"):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def picture(height, title, parts):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title, quote=True)}">\n{STYLE}\n'
        f'<rect class="back" width="{WIDTH}" height="{height}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def nice_step(top):
    """A step that divides the axis into four to eight parts: 1, 2 or 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(top / 4))
    return next(m * power for m in (1, 2, 5, 10) if top / (m * power) <= 8)


def short(value):
    """Three digits that count."""
    for least, form in ((100, ".0f"), (10, ".1f"), (1, ".2f"), (0.1, ".3f")):
        if value >= least:
            return format(value, form)
    return format(value, ".4f")


def bars(title, subtitle, groups):
    """groups: (heading, [(label, kind, value, least, most)]); all on one axis that begins at 0."""
    groups = [g for g in groups if g[1]]
    top = max(b[4] for g in groups for b in g[1]) * 1.02
    scale = (WIDTH - LEFT - RIGHT) / top
    height = 78 + sum(30 + STEP * len(g[1]) for g in groups)
    parts = [text(16, 26, title, "title"), text(16, 46, subtitle, "dim")]
    step = nice_step(top)
    for i in range(int(top / step) + 1):
        x = LEFT + i * step * scale
        parts += [line(x, 58, x, height - 24), text(x, height - 8, f"{i * step:g}", "dim middle")]
    y = 62
    for heading, rows in groups:
        parts.append(text(16, y + 16, heading, "head"))
        y += 26
        for label, kind, value, least, most in rows:
            middle = y + BAR / 2
            parts += [
                text(LEFT - 8, y + 13, label, "end"),
                f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{value * scale:.1f}" height="{BAR}" rx="2"/>',
                line(LEFT + least * scale, middle, LEFT + most * scale, middle, "whisker"),
                text(LEFT + most * scale + 6, y + 13, short(value), "dim"),
            ]
            y += STEP
        y += 4
    return picture(height, title, parts)


def size_name(size):
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift:
            return f"{size / (1 << shift):g} {unit}"
    return f"{size} B"


def over_size(title, subtitle, points, constant, slope):
    """points: (bytes, seconds), both axes logarithmic, with constant + slope * bytes as a line."""
    height, top, bottom, left = 420, 66, 372, 80
    low, high = math.log2(points[0][0]), math.log2(points[-1][0])
    least = math.floor(math.log10(min(p[1] for p in points)))
    most = math.ceil(math.log10(max(p[1] for p in points)))

    def at(size, seconds):
        return (
            left + (math.log2(size) - low) / (high - low) * (WIDTH - left - 40),
            bottom - (math.log10(seconds) - least) / (most - least) * (bottom - top),
        )

    parts = [text(16, 26, title, "title"), text(16, 46, subtitle, "dim")]
    for power in range(least, most + 1):
        y = at(points[0][0], 10.0**power)[1]
        parts += [line(left, y, WIDTH - 40, y), text(left - 8, y + 4, f"{10.0 ** power:g} s", "dim end")]
    for size, _ in points:
        x = at(size, 1)[0]
        parts += [line(x, top, x, bottom), text(x, bottom + 20, size_name(size), "dim middle")]
    steps = [2 ** (low + (high - low) * i / 60) for i in range(61)]
    curve = " ".join("%.1f,%.1f" % at(s, max(constant + slope * s, 10.0**least)) for s in steps)
    parts.append(f'<polyline class="fit" points="{curve}"/>')
    parts += ['<circle class="bk" r="5" cx="%.1f" cy="%.1f"/>' % at(*p) for p in points]
    parts.append(text(left, height - 10, "points: medians; line: constant + slope x bytes", "dim"))
    return picture(height, title, parts)
