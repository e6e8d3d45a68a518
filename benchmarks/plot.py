"""The ratios as a picture: haproxy_py against every peer, scenario by scenario, with the spread of the rounds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.machine import UnavailableError
from benchmarks.results import DISTRIBUTION, Results, pairwise, spread
from benchmarks.scenarios import Scenario


def draw(results: Results, scenarios: Iterable[Scenario], path: Path) -> None:
    """Write an SVG. Raises UnavailableError without matplotlib, or where there is no ratio to show."""
    peers = [*DISTRIBUTION, *results.newest]
    measured = [s for s in scenarios if any(pairwise(results.samples, s.name, "haproxy_py", peer) for peer in peers)]
    if not measured:
        raise UnavailableError("haproxy_py and a peer were not measured under the same load")
    try:
        import matplotlib
    except ImportError as problem:
        raise UnavailableError("matplotlib is not installed (pip install matplotlib)") from problem
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "haproxy-py"  # the same picture for the same samples
    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text, not as outlines
    from matplotlib import pyplot

    height = 0.8 / len(peers)
    figure, axes = pyplot.subplots(figsize=(8, 1.5 + 0.5 * len(measured)), layout="constrained")
    for index, peer in enumerate(peers):
        points = [
            (row + (index - (len(peers) - 1) / 2) * height, ratio)
            for row, scenario in enumerate(measured)
            if (ratio := spread(pairwise(results.samples, scenario.name, "haproxy_py", peer)))
        ]
        if points:
            axes.errorbar(
                [ratio.median for _, ratio in points],
                [place for place, _ in points],
                xerr=(
                    [ratio.median - ratio.low for _, ratio in points],
                    [ratio.high - ratio.median for _, ratio in points],
                ),
                fmt="o",
                markersize=4,
                capsize=2,
                label=f"to {peer} {results.versions.get(peer, '')}",
            )
    top, bottom = ([row + half for row in range(len(measured))] for half in (-0.4, 0.4))
    axes.vlines([scenario.limit for scenario in measured], top, bottom, colors="black", linewidth=1)
    axes.vlines([scenario.aim for scenario in measured], top, bottom, colors="black", linewidth=1, linestyles="dotted")
    axes.axvline(1.0, color="grey", linewidth=0.5)
    axes.set_yticks(range(len(measured)), [scenario.name for scenario in measured])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("CPU per request of haproxy_py, ratio (median and range of rounds); bars: at most, dotted: aim")
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
