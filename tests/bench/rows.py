"""What was measured, by name, and the line through the sizes."""

import plots


class Rows:
    """What was measured, by name."""

    def __init__(self, results):
        self.results = results
        self.rows = {f"{r['work']}/{r['sink']}/{r['name']}": r for r in results["rows"]}
        self.engines = results["engines"]
        self.best = results["engines"][-1]

    def get(self, key):
        return self.rows.get(key)

    def of(self, work, sink=None):
        return [r for r in self.rows.values() if r["work"] == work and sink in (None, r["sink"])]

    def bk(self, program, engine):
        return f"{program} {engine}" if engine else program

    @property
    def floor(self):
        """What a process is charged before it begins: the memory of the Python program that forked it."""
        row = self.get("small/null/true")
        return row["maxRssKiB"] if row else 0


def number(value):
    return plots.short(value)


def fit(results):
    """time = constant + slope * bytes, by least squares of the relative distances; None if there are too few sizes."""
    points = sorted((r["bytes"], r["seconds"]) for r in results["rows"] if r["work"] == "size")
    if len(points) < 3:
        return None
    w = [1 / (t * t) for _, t in points]
    s, sx = sum(w), sum(k * n for k, (n, _) in zip(w, points))
    sxx = sum(k * n * n for k, (n, _) in zip(w, points))
    sy, sxy = sum(k * t for k, (_, t) in zip(w, points)), sum(k * n * t for k, (n, t) in zip(w, points))
    slope = (s * sxy - sx * sy) / (s * sxx - sx * sx)
    constant = (sy - slope * sx) / s
    return {
        "constant": constant,
        "slope": slope,
        "points": [{"bytes": n, "seconds": t, "residual": t / (constant + slope * n) - 1} for n, t in points],
    }
