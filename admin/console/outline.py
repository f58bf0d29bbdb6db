"""The world's outline as one SVG path, from world-atlas (npm): `python -m admin.console.outline land-110m.json`.

For whoever renews `assets/world.js`. Longitude is x and latitude is y, downwards, in degrees: 360 by 180. TopoJSON's
arcs are differences of whole numbers, which its transform turns to degrees; a negative number of an arc means that it
runs backwards. A ring over the antimeridian (Chukotka, Fiji) goes on past it, and is there twice.
Antarctica, that holds no viewers and goes round the pole, is left out.
"""

import json
import sys
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Final

_SOUTH: Final = -60.0

Point = tuple[float, float]


def outline(topology: dict[str, Any]) -> str:
    """Of all that is land."""
    (scale_x, scale_y), (left, top) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = [
        [
            (x * scale_x + left, y * scale_y + top)
            for x, y in zip(accumulate(point[0] for point in arc), accumulate(point[1] for point in arc), strict=True)
        ]
        for arc in topology["arcs"]
    ]
    path = []
    for geometry in topology["objects"]["land"]["geometries"]:
        polygons = geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]
        for ring in (ring for polygon in polygons for ring in polygon):
            points = [point for arc in ring for point in (arcs[arc] if arc >= 0 else arcs[~arc][::-1])[1:]]
            if max(y for _, y in points) < _SOUTH:
                continue
            whole = _unbroken(points)
            west, east = min(x for x, _ in whole), max(x for x, _ in whole)
            path += [_drawn(whole, shift) for shift in (-360, 0, 360) if west + shift < 180 and east + shift > -180]
    return "".join(path)


def _unbroken(points: list[Point]) -> list[Point]:
    """With longitudes that go on past 180 instead of jumping to the other edge."""
    made, turn = points[:1], 0.0
    for (before, _), (x, y) in pairwise(points):
        turn -= 360 * round((x - before) / 360)
        made.append((x + turn, y))
    return made


def _drawn(points: list[Point], shift: float) -> str:
    steps = [f"{round(x + shift + 180, 1):g} {round(90 - y, 1):g}" for x, y in points]
    kept = [step for place, step in enumerate(steps) if place == 0 or step != steps[place - 1]]
    return f"M{'L'.join(kept)}Z" if len(kept) > 2 else ""


def main() -> None:
    topology = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.stdout.write(
        "// Land of Natural Earth, 1:110m, of world-atlas 2.0.2: see THIRD-PARTY.md. By admin/console/outline.py.\n"
        f'export const WORLD = "{outline(topology)}";\n'
    )


if __name__ == "__main__":
    main()
