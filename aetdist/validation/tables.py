"""The figures of a validation, and the table that is printed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

_COLUMNS = ("x", "y", "z", "distance")


def figures_of(result: xr.Dataset) -> dict[str, Any]:
    """Plain numbers of VALIDATION: parts of 1, lengths in pm, depths in Angstrom; None where there is none."""
    figures: dict[str, Any] = {
        name: result.attrs[name] for name in ("n_true", "n_found", "identified", "missed", "mistyped", "false")
    }
    figures["identified_of_type"] = _numbers(result["identified"])
    figures["confusion"] = result["confusion"].values.tolist()
    figures |= {f"{name}_of_type": result[f"{name}_atoms"].values.tolist() for name in ("true", "missed", "false")}
    for name in ("mean", "rms", "peak"):
        figures[f"deviation_{name}_pm"] = _numbers(100.0 * result[f"deviation_{name}"])
    names = ("from", "to", "true", "missed", "mistyped", "found", "false")
    figures["depth"] = {name: _numbers(result[f"depth_{name}"]) for name in names}
    figures["depth"]["rms_pm"] = [_numbers(row) for row in 100.0 * result["depth_rms"]]
    figures["sigma_factor"] = result["sigma_factor"].values.tolist()
    figures["sigma_depth"] = _numbers(result["sigma_depth"])
    figures["within_sigma"] = _numbers(result["within_sigma"])
    figures["within_calibrated_sigma"] = _numbers(result["within_calibrated_sigma"])
    figures["probability"] = {
        name: _numbers(result[f"probability_{name}"]) for name in ("from", "atoms", "claimed", "right")
    }
    figures["r_factor"] = float(result["r_factor"].mean())
    kept = ("noise_gain", "noise_floor", "noise_white", "turned_degree", "shifted_angstrom", "tolerance", "stages")
    return figures | {name: result.attrs[name] for name in kept}


def table_of(summary: Mapping[str, Any]) -> str:
    """The summary of `aetdist validate` as lines of text."""
    v = summary["validation"]
    lines = [
        f"{v['n_true']:,} atoms simulated, {v['n_found']:,} found (pairs within {v['tolerance']:g} Å)",
        f"identified {_percent(v['identified'])}, another type {_percent(v['mistyped'])}, "
        f"missed {_percent(v['missed'])}, false {_percent(v['false'])}",
        "",
        *_confusion(v),
        "",
        *aligned(
            ["found − true, pm", *_COLUMNS],
            [
                ["mean", *map(_pm, v["deviation_mean_pm"])],
                ["rms", *map(_pm, v["deviation_rms_pm"])],
                ["most frequent", *map(_pm, v["deviation_peak_pm"])],
                ["within σ", *(_percent(x) for x in v["within_sigma"]), ""],
                ["within calibrated σ", *(_percent(x) for x in v["within_calibrated_sigma"]), ""],
            ],
        ),
        "",
        *_depths(v["depth"]),
        "",
        *_factors(v),
        "",
        *_probabilities(v["probability"]),
        "",
        f"R of the measured images against the simulated ones {_percent(v['r_factor'])}",
    ]
    computed, stages = summary.get("n_tilts_computed", 0), ", ".join(v["stages"])
    lines.append(f"stages: {stages}; {computed} tilts simulated now; {summary.get('state', '')}".rstrip("; "))
    if "seconds" in summary:
        memory = summary["peak_memory_bytes"] / 1e9
        lines.append(f"{summary['seconds']:.1f} s, {memory:.2f} GB in the largest process")
    return "\n".join(lines) + "\n"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(word.rjust(w) for word, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    ]


def _confusion(v: Mapping[str, Any]) -> list[str]:
    k = len(v["confusion"])
    head = ["true type", *(f"found {i + 1}" for i in range(k)), "missed", "identified"]
    rows = []
    for i, counts in enumerate(v["confusion"]):
        last = [f"{v['missed_of_type'][i]:,}", _percent(v["identified_of_type"][i])]
        rows.append([f"{i + 1}", *(f"{n:,}" for n in counts), *last])
    return aligned(head, [*rows, ["false", *(f"{n:,}" for n in v["false_of_type"]), "", ""]])


def _depths(depth: Mapping[str, Any]) -> list[str]:
    head = ["Å below the surface", "atoms", "missed", "another type", "false", "rms x, y, z (pm)"]
    rows = []
    for i, low in enumerate(depth["from"]):
        counts = [f"{int(depth[name][i]):,}" for name in ("true", "missed", "mistyped", "false")]
        rows.append([f"{low:g} to {depth['to'][i]:.3g}", *counts, " ".join(map(_pm, depth["rms_pm"][i]))])
    return aligned(head, rows)


def _factors(v: Mapping[str, Any]) -> list[str]:
    head = ["σ is multiplied by", "x", "y", "z"]
    several = len(v["sigma_depth"]) > 1
    where = [f"{depth:.3g} Å deep" if several else "everywhere" for depth in v["sigma_depth"]]
    return aligned(
        head, [[place, *(f"{x:.2f}" for x in row)] for place, row in zip(where, v["sigma_factor"], strict=True)]
    )


def _probabilities(p: Mapping[str, Any]) -> list[str]:
    rows = []
    for i, low in enumerate(p["from"]):
        if p["atoms"][i]:
            said = [f"{int(p['atoms'][i]):,}", _percent(p["claimed"][i]), _percent(p["right"][i])]
            rows.append([f"{low:g} and more", *said])
    return aligned(["probability", "atoms", "claimed", "true"], rows)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _pm(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _numbers(values: xr.DataArray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values.values]
