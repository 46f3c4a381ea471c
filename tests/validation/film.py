"""Hold a store of the measured film (ta_film_fov_A) against what its authors published.

    python tests/validation/film.py film.zarr

prints, as JSON: R over the measured pixels, correlation with the published volume (inside its support,
rows <= 116), how well windows agree, and the atoms against the published ones (mutual nearest within
0.75 Angstrom), also near the borders of windows. Needs AETDIST_DATA.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from aetdist.io import Store
from aetdist.metrics import compare_atoms
from aetdist.neighbors import mutual_nearest

VOXEL = 0.3216
ORIGIN = np.array([200, 175, 170])  # voxel (x, y, z), counted from 0, of the film's origin
ROWS = 116  # the published volume is cut at row 118


def published(folder: str | Path) -> dict[str, np.ndarray]:
    """Volume and support in the film's frame (z, y, x), and positions in Angstrom."""
    with h5py.File(Path(folder) / "ta_film_reference_A.h5") as file:
        volume = np.zeros(file["support"].shape, np.float32)
        x, y, z = file["volume"].attrs["first_voxel_xyz_1based"] - 1
        nz, ny, nx = file["volume"].shape
        volume[z : z + nz, y : y + ny, x : x + nx] = file["volume"][:]
        return {
            "volume": volume,
            "support": file["support"][:],
            "positions": file["positions_angstrom"][:].astype(np.float64),
        }


def inside(positions: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Which positions (Angstrom) lie in the support, rows <= 116."""
    voxel = np.round(positions / VOXEL).astype(int) + ORIGIN
    shape = np.array(support.shape)[::-1]
    result = ((voxel >= 0) & (voxel < shape)).all(axis=1) & (voxel[:, 1] < ROWS)
    x, y, z = voxel[result].T
    result[result] = support[z, y, x]
    return result


def correlation(volume: Any, columns: np.ndarray, truth: dict[str, np.ndarray]) -> float:
    """Correlation with the published volume inside its support, over some columns (y, x) of the volume."""
    start = [round(float(volume[axis][0]) / VOXEL) + o for axis, o in zip("zyx", ORIGIN[::-1], strict=True)]
    there = [
        slice(max(0, s), min(n, s + volume.sizes[a]))
        for s, n, a in zip(start, truth["volume"].shape, "zyx", strict=True)
    ]
    there[1] = slice(there[1].start, min(there[1].stop, ROWS))
    here = tuple(slice(t.start - s, t.stop - s) for t, s in zip(there, start, strict=True))
    support = truth["support"][tuple(there)] & columns[here[1:]]
    return float(np.corrcoef(volume.values[here][support], truth["volume"][tuple(there)][support])[0, 1])


def above(positions: np.ndarray, columns: np.ndarray, volume: Any) -> np.ndarray:
    """Which positions (Angstrom) lie above or below one of the columns (y, x) of the volume."""
    index = [np.round((positions[:, i] - float(volume[a][0])) / VOXEL).astype(int) for i, a in ((1, "y"), (0, "x"))]
    result = np.all([(i >= 0) & (i < n) for i, n in zip(index, columns.shape, strict=True)], axis=0)
    result[result] = columns[index[0][result], index[1][result]]
    return result


def as_atoms(positions: np.ndarray) -> xr.Dataset:
    """Positions (Angstrom) as ATOMS."""
    return xr.Dataset({"position": (("atom", "axis"), positions)}, {"axis": ["x", "y", "z"]})


def near_borders(positions: np.ndarray, volume: Any, distance: float = 5.0) -> np.ndarray:
    """Which positions lie within `distance` (Angstrom) of where windows are blended."""
    y, x = np.nonzero(np.isfinite(volume["disagreement"].values))
    if y.size == 0:
        return np.zeros(len(positions), bool)
    tree = cKDTree(np.stack([volume["x"].values[x], volume["y"].values[y]], axis=1))
    return tree.query(positions[:, :2])[0] <= distance


def judge(path: str | Path, folder: str | Path, edge: int = 0) -> dict[str, Any]:
    """All figures that a store has, over columns more than `edge` voxels inside the field."""
    truth = published(folder)
    with Store.open(path) as store:
        groups = store.groups()
        volume = store.read("volume")
        atoms = store.read("atoms")["position"].values if "atoms" in groups else None
        summary = store.notes("volume").get("summary", {})
    columns = np.ones([volume.sizes[a] for a in "yx"], bool)
    if "support" in volume:  # of a scan: the field
        columns = volume["support"].any("z").values
        columns = binary_erosion(columns, iterations=edge) if edge else columns
    figures: dict[str, Any] = {
        "r_factor_mean": float(volume["r_factor"][-1].mean()),
        "correlation": correlation(volume["density"], columns, truth),
        **{k: summary[k] for k in ("disagreement_l1", "disagreement_correlation") if k in summary},
    }
    if atoms is None:
        return figures
    known = truth["positions"][inside(truth["positions"], truth["support"])]
    known = known[above(known, columns, volume)]
    found = atoms[inside(atoms, truth["support"]) & above(atoms, columns, volume)]
    figures |= compare_atoms(as_atoms(found), as_atoms(known), tolerance=0.75).to_dict()
    if "disagreement" in volume:
        border = near_borders(known, volume)
        for name, part in (("recall_near_borders", border), ("recall_elsewhere", ~border)):
            figures[name] = _recall_of(found, known, part) if part.any() else None
    return figures


def _recall_of(found: np.ndarray, known: np.ndarray, part: np.ndarray) -> float:
    pairs, _ = mutual_nearest(found, known, 0.75)
    matched = np.zeros(len(known), bool)
    matched[pairs[:, 1]] = True
    return float(matched[part].mean())


if __name__ == "__main__":
    print(json.dumps(judge(sys.argv[1], os.environ["AETDIST_DATA"]), indent=1, default=str))
