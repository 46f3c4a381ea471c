"""Atoms of the measured film (ta_film_fov_A) against the published ones, and of a film of known atoms made like it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import film as published_film
import h5py
import numpy as np
import xarray as xr
from engine.measure import Stopwatch
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

import aetdist as aet
from aetdist import pipeline
from aetdist.cluster import connect
from aetdist.geometry import matrices_from_euler
from aetdist.io import Record, Store
from aetdist.metrics import compare_atoms, r_factor
from aetdist.project.atoms import project_atoms
from aetdist.schema import TILT_SERIES, with_units
from aetdist.validation.images import noise_free
from aetdist.validation.model import Geometry, model_of
from aetdist.validation.noise import noise_like

VOXEL, ORIGIN = published_film.VOXEL, published_film.ORIGIN
SCAN = {"window": (131, 73), "overlap": 65, "thickness": 48.6}
#: Rows (from 1) whose rays see atoms that are in the field and were published: atoms before the field's first row and
#: beyond the published cut at row 118 reach into the others.
ROWS = (11, 112)
HELD_OUT = (4, 13, 22, 31, 40)  # tilts
SMOOTH = 4.0  # Angstrom: what refinement calls background by default
#: What atoms have for themselves; the last is the default. The others let atoms alone explain the images, as R counts
#: them: pixels alike, or nothing taken off as background. Both were chosen on this film, by R.
FREEDOMS: dict[str, dict[str, Any]] = {
    "one height": {"heights": "type", "widths": "type", "weights": "uniform"},
    "a height per atom": {"heights": "atom", "widths": "type", "background": 0.0},
    "as it chooses": {},
}
NEAREST = 2.0  # Angstrom, of an atom of the field and one of those it goes on with


def measured_series() -> xr.Dataset:
    """The measured tilt series, in memory."""
    with h5py.File(Path(os.environ["AETDIST_DATA"]) / "ta_film_fov_A.h5") as file:
        stored = file["images"]
        mask, angles = file["mask"][:].astype(bool), file["angles_deg"][:].astype(np.float64)
        images = stored[:] * stored.attrs["scale_factor"] + stored.attrs["add_offset"]
        y, x = file["y_pix"][:] * VOXEL, file["x_pix"][:] * VOXEL
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), np.where(mask, images, 0.0).astype(np.float32)),
            "mask": (("tilt", "y", "x"), mask),
            "angles": (("tilt", "euler"), angles),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(angles)),
            "pixel_size": ((), VOXEL),
        },
        {"tilt": np.arange(len(images)), "y": y, "x": x, "euler": ["phi", "theta", "psi"]},
    )
    return with_units(series, TILT_SERIES)


def scanned(series: xr.Dataset) -> xr.Dataset:
    """The film's volume by `scan`, kept in the temporary folder for the next time."""
    digest = hashlib.sha256(series["images"].values.tobytes() + json.dumps(SCAN).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / "aetdist-films" / f"{digest}.zarr"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        with Store.create(path) as store:
            store.write("tilt_series/aligned", series, record=Record("film"), chunks={"tilt": 1})
    with connect(workers=2, memory_limit="4GiB"):
        pipeline.scan(path, **SCAN)  # computes what is not there
    with Store.open(path) as store:
        return store.read("volume").load()


def inside_field(series: xr.Dataset) -> np.ndarray:
    """Measured pixels whose rays stay in the field's columns through the whole thickness of the film, in ``ROWS``."""
    first, last = ((row - 1 - ORIGIN[1]) * VOXEL for row in ROWS)
    u, v = np.meshgrid(series["x"].values, series["y"].values)
    low, high = series["x"].values[[0, -1]]
    stays = series["mask"].values.copy()
    for tilt, r in enumerate(matrices_from_euler(series["angles"].values)):
        for z in (-SCAN["thickness"] / 2, SCAN["thickness"] / 2):  # type: ignore[operator]
            w = (z - r[0, 2] * u - r[1, 2] * v) / r[2, 2]
            x, y = (r[0, i] * u + r[1, i] * v + r[2, i] * w for i in (0, 1))
            stays[tilt] &= (x >= low) & (x <= high) & (y >= first) & (y <= last)
    return stays


def images_of(positions: np.ndarray, series: xr.Dataset, heights: Any, sigmas: Any) -> np.ndarray:
    """Projections of Gaussian atoms as the series sees them."""
    return project_atoms(
        positions,
        series["angles"].values,
        heights=heights,
        sigmas=sigmas,
        x=series["x"].values,
        y=series["y"].values,
        pixel_size=float(series["pixel_size"]),
    )


def r_inside(calculated: np.ndarray, series: xr.Dataset, background: float = 0.0) -> float:
    """R over the rays inside the field, mean over tilts; less what of the residual is smooth over `background`.

    The background (standard deviation of the Gaussian in Angstrom; 0 for none) is one of these rays alone.
    """
    where = inside_field(series)
    if background:
        scale = (0.0, *2 * [background / float(series["pixel_size"])])
        left = gaussian_filter(where * (series["images"].values - calculated), scale, mode="constant")
        around = gaussian_filter(where.astype(np.float32), scale, mode="constant")
        calculated = calculated + np.divide(left, around, out=np.zeros_like(left), where=where)
    return float(np.nanmean(r_factor(calculated, series["images"].values, where)))


def best_gaussians(positions: np.ndarray, series: xr.Dataset) -> tuple[float, float]:
    """Height and sigma (Angstrom), the same for all atoms, that explain the rays inside the field best (squares)."""
    where = inside_field(series)
    measured = series["images"].values[where]
    fits = []
    for sigma in np.arange(0.60, 0.84, 0.02):
        one = images_of(positions, series, 1.0, sigma)[where]
        height = float(one @ measured / (one @ one))
        fits.append((float(((height * one - measured) ** 2).sum()), height, float(sigma)))
    return min(fits)[1:]


def of_model(atoms: xr.Dataset, series: xr.Dataset, own_tilts: bool = False) -> np.ndarray:
    """Projections of refined atoms as they are stored, with their tails, (tilt, y, x).

    At the angles of the series, or where and as bright as the refinement has its tilts.
    """
    n = series.sizes["tilt"]
    came = Geometry(series, series["angles"].values, np.zeros((n, 2)), np.ones(n))
    if own_tilts:
        came = Geometry(series, *(atoms[name].values for name in ("angles", "shift", "gain")))
    return noise_free(model_of(atoms), came)["images"].values


def agreement(atoms: xr.Dataset, known: np.ndarray, volume: xr.Dataset) -> dict[str, Any]:
    """Atoms against known positions in the published support, rows <= 116."""
    support = published_film.published(os.environ["AETDIST_DATA"])["support"]
    columns = volume["support"].any("z").values

    def compared(positions: np.ndarray) -> xr.Dataset:
        there = published_film.inside(positions, support)
        there &= published_film.above(positions, columns, volume)
        return published_film.as_atoms(positions[there])

    found = compare_atoms(compared(atoms["position"].values), compared(known), tolerance=0.75).to_dict()
    return {key: found[key] for key in ("f1", "recall", "precision", "rms", "rms_x", "rms_y", "rms_z")}


def solved(series: xr.Dataset, options: Any, **refinement: Any) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Volume, traced and refined atoms of a film, all of one type."""
    given, volume = options or {}, scanned(series)
    traced = aet.trace_atoms(volume, **given.get("trace", {}))
    refined = aet.refine_atoms(series, traced, volume=volume, **(refinement | given.get("refine", {})))
    return volume, traced, refined


def film(seed: int = 0, options: Any = None) -> dict[str, Any]:
    """The measured film: its atoms against the published ones, and how well they explain the rays inside the field."""
    series = measured_series()
    known = published_film.published(os.environ["AETDIST_DATA"])["positions"]
    height, sigma = best_gaussians(known, series)
    figures: dict[str, Any] = {
        "rays_inside": float(inside_field(series).sum() / series["mask"].values.sum()),
        "published": {
            "r_inside": r_inside(images_of(known, series, height, sigma), series),
            "height": height,
            "sigma": sigma,
        },
    }
    for name, freedom in FREEDOMS.items():
        watch = Stopwatch()
        volume, traced, refined = solved(series, options, **freedom)
        figures["traced"] = agreement(traced, known, volume) | {"r_volume": float(volume["r_factor"][-1].mean())}
        figures[name] = agreement(refined, known, volume) | explained(refined, series) | watch.read()
    started = published_film.as_atoms(known)
    refined = aet.refine_atoms(series, started, volume=volume, curate=False, **FREEDOMS["one height"])
    figures["published, refined"] = agreement(refined, known, volume) | explained(refined, series)
    kept = np.setdiff1d(np.arange(series.sizes["tilt"]), HELD_OUT)
    left_out = series.isel(tilt=list(HELD_OUT))
    for name in ("a height per atom", "as it chooses"):
        _, _, refined = solved(series.isel(tilt=kept), options, **FREEDOMS[name])
        figures[f"{name}, held-out tilts"] = r_of(of_model(refined, left_out), left_out)
    return figures


def r_of(calculated: np.ndarray, series: xr.Dataset) -> dict[str, float]:
    """R over the rays inside the field, of atoms alone and with the smooth background that refinement takes off."""
    return {"r_inside": r_inside(calculated, series), "r_inside_less_background": r_inside(calculated, series, SMOOTH)}


def explained(refined: xr.Dataset, series: xr.Dataset) -> dict[str, Any]:
    """R of the model over the rays inside the field: tilts as they came, and as the refinement has them."""
    return {
        "atoms": refined.sizes["atom"],
        "heights": refined.attrs["heights"],
        "widths": refined.attrs["widths"],
        "tails": refined.attrs["tails"],
        **r_of(of_model(refined, series), series),
        "refined_tilts": r_of(of_model(refined, series, own_tilts=True), series),
        "r": float(refined.attrs["R"]),
        "counts": {key: refined.attrs[key] for key in ("n_added", "n_deleted", "n_merged")},
    }


def continued(positions: np.ndarray, reach: float) -> np.ndarray:
    """Atoms of the field, and their mirror images at its edges as far as `reach` (Angstrom) beyond them."""
    low = np.array([-ORIGIN[0] - 0.5, -ORIGIN[1] - 0.5]) * VOXEL
    high = np.array([ORIGIN[0] + 0.5, published_film.ROWS + 2 - ORIGIN[1] - 0.5]) * VOXEL  # the cut at row 118
    everything = positions
    for axis in (0, 1):
        for edge, beyond in ((low[axis], -1), (high[axis], 1)):
            image = everything.copy()
            image[:, axis] = 2 * edge - image[:, axis]
            off = beyond * (image[:, axis] - edge)
            image = image[(off > 0) & (off <= reach)]
            apart = cKDTree(everything).query(image)[0] >= NEAREST
            everything = np.concatenate([everything, image[apart]])
    return everything


def synthetic_series(seed: int) -> tuple[xr.Dataset, np.ndarray]:
    """The published atoms, continued beyond the field, seen and disturbed as the measured film is; and the atoms."""
    measured = measured_series()
    volume = scanned(measured)
    known = published_film.published(os.environ["AETDIST_DATA"])["positions"]
    height, sigma = best_gaussians(known, measured)
    mask, images = measured["mask"].values, measured["images"].values
    residual = images - reprojection(volume, measured)
    whole = continued(known, reach=100.0)
    clean = images_of(whole, measured, height, sigma)
    random = np.random.default_rng(seed)
    noisy = clean + np.stack([noise_like(*tilt, random) for tilt in zip(residual, mask, strict=True)])
    series = measured.assign(images=(("tilt", "y", "x"), np.where(mask, noisy, 0.0).astype(np.float32)))
    return with_units(series, TILT_SERIES), whole


def reprojection(volume: xr.Dataset, series: xr.Dataset) -> np.ndarray:
    """Projections (tilt, y, x) of a volume where the series has its pixels."""
    from aetdist.project import ParallelProjector
    from aetdist.reconstruct.grid import Field

    first = tuple(round(float(volume[axis][0]) / VOXEL) for axis in "zyx")
    density = np.ascontiguousarray(volume["density"].values)
    return ParallelProjector(Field.of(series).geometry(first, density.shape), 1).forward(density)


def synthetic_film(seed: int = 0, options: Any = None) -> dict[str, Any]:
    """A film of known atoms with the measured one's geometry, mask and noise."""
    series, known = synthetic_series(seed)
    figures: dict[str, Any] = {"taken": {"atoms": len(known), "seed": seed}}
    for name, freedom in FREEDOMS.items():
        watch = Stopwatch()
        volume, traced, refined = solved(series, options, **freedom)
        figures["traced"] = agreement(traced, known, volume) | {"r_volume": float(volume["r_factor"][-1].mean())}
        figures[name] = agreement(refined, known, volume) | explained(refined, series) | watch.read()
    return figures
