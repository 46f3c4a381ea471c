"""How well films are aligned, over many of them: errors and what is claimed of them, and which are taken for aligned.

    python tests/validation/film_alignment.py [seeds] [name ...]

Amorphous films that go on beyond the field, with the noise of 1.7e4 e/A^2 per tilt, a smooth background left over,
shifts of up to 15 pixels and an axis turned by up to 2 degrees. Errors are rms over the tilts in pixels, the film's
position taken away; claims are the rms of `shift_uncertainty`. At the end the same thin films as they are, with the
ragged masks of aligned series, with shifts of 0.5 pixels rms, and with the axis turned by 0.3 degrees: how many
are left as they are.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import numpy as np
import xarray as xr

from aetdist.align import align_tilt_series
from aetdist.errors import AetdistWarning
from aetdist.geometry import centred_coordinates, euler_from_tilts, matrices_from_euler, rotate_tilt_axis
from aetdist.project.atoms import project_atoms
from aetdist.simulate import amorphous_film
from aetdist.simulate.inputs import heights_of, types_of

PIXEL = 0.35  # Angstrom
FILMS: dict[str, dict[str, Any]] = {
    "thin, holes": {"thickness": 12.0, "holes": 4},
    "thin": {"thickness": 12.0},
    "thin, holes, 41": {"thickness": 14.0, "holes": 4, "tilts": 41},
    "thin, 400": {"thickness": 12.0, "field": 400},
    "thick, 40 A": {"thickness": 40.0, "tilts": 23},
    "thick, 50 A": {"thickness": 50.0, "tilts": 21},
}


def film(
    seed: int, *, thickness: float, holes: int = 0, tilts: int = 27, field: int = 200, shift: float = 15.0,
    axis: float | None = None, ragged: bool = False,
) -> tuple[xr.Dataset, np.ndarray, float]:  # fmt: skip
    """A tilt series, its shifts (tilt, [y, x]) in pixels and its axis in degrees."""
    random = np.random.default_rng(1000 + seed)
    angles = np.linspace(-60.0, 60.0, tilts)
    turned = random.uniform(-2.0, 2.0) if axis is None else axis
    moves = random.uniform(-shift, shift, (tilts, 2))
    wide = (field + 40) * PIXEL
    atoms = amorphous_film(
        (2.0 * wide + 2.0 * thickness + 20.0, wide), thickness, waviness=2.0, wavelength=random.uniform(50.0, 70.0),
        wedge=random.uniform(0.0, 3.0), seed=seed,
    )  # fmt: skip
    position, height = atoms["position"].values, heights_of(atoms, types_of(atoms), None)
    kept = np.ones(len(position), bool)
    for _ in range(holes):
        middle = random.uniform(-1.0, 1.0, 2) * [0.9 * wide, 0.5 * wide]
        kept &= np.hypot(*(position[:, :2] - middle).T) > random.uniform(12.0, 26.0)
    nominal, c = euler_from_tilts(angles), centred_coordinates(field, PIXEL)
    euler = rotate_tilt_axis(nominal, turned)
    images = np.concatenate(
        [
            project_atoms(
                position[kept], euler[t : t + 1], heights=height[kept], sigmas=0.6,
                x=c - m[1] * PIXEL, y=c - m[0] * PIXEL, pixel_size=PIXEL,
            )
            for t, m in enumerate(moves)
        ]
    )  # fmt: skip
    counts = 0.05 * 1.7e4 * PIXEL**2 / images.mean()
    y, x = np.meshgrid(*[np.linspace(-1.0, 1.0, field)] * 2, indexing="ij")
    smooth = random.normal(0.0, 0.02, (tilts, 3)) @ np.stack([y, x, x * y]).reshape(3, -1)
    images = random.poisson(images * counts) / counts + images.mean() * smooth.reshape(images.shape)
    mask = np.ones(images.shape, bool)
    if ragged:  # as of a film whose tilts were shifted and cropped to what low tilts show of it
        for t, angle in enumerate(np.deg2rad(angles)):
            edges = (field * (1.0 - np.cos(angle)) / 2 + random.uniform(0.0, 8.0, 4)).astype(int)
            mask[t, :, : edges[0]] = mask[t, :, field - edges[1] :] = False
            mask[t, : field // 2, : edges[0] + edges[2] % 8] = mask[t, : edges[3] % 8] = False
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), np.where(mask, images, 0.0).astype(np.float32)),
            "mask": (("tilt", "y", "x"), mask),
            "angles": (("tilt", "euler"), nominal),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(nominal)),
            "pixel_size": ((), PIXEL),
        },
        coords={"tilt": np.arange(tilts), "y": c, "x": c, "euler": ["phi", "theta", "psi"]},
    )
    return series, moves, turned


def errors(found: xr.Dataset, series: xr.Dataset, shift: np.ndarray, axis: float) -> tuple[float, float]:
    """Rms errors along and across the axis in pixels, the film's position taken away."""
    turn, angle = np.deg2rad(axis), np.deg2rad(series["angles"].values[:, 1])
    used = found["used"].values
    off, angle = (found["found_shift"].values - shift)[used], angle[used]
    along, across = off @ [np.cos(turn), -np.sin(turn)], off @ [np.sin(turn), np.cos(turn)]
    path = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    across = across - path @ np.linalg.lstsq(path, across, rcond=None)[0]
    return float(along.std()), float(np.sqrt((across**2).mean()))


def main(seeds: int, names: list[str]) -> None:
    """Print the tables."""
    warnings.simplefilter("ignore", AetdistWarning)  # of tilts whose mass stands out: a hole comes into the field
    print(f"{'':<18}axis: rms, largest, claimed   along: median, largest, claimed   across: the same    CPU-s")
    for name in names or FILMS:
        if name not in FILMS:
            continue
        rows, begin = [], time.process_time()
        for seed in range(201, 201 + seeds):
            series, shift, axis = film(seed, **FILMS[name])
            found = align_tilt_series(series, kind="film")
            claimed = np.sqrt(np.nanmean(found["shift_uncertainty"].values ** 2, axis=0))
            off = abs(float(found["found_tilt_axis"]) - axis)
            rows.append([off, float(found["tilt_axis_uncertainty"]), *errors(found, series, shift, axis), *claimed])
        t = np.array(rows)
        print(
            f"{name:<18}{np.sqrt((t[:, 0] ** 2).mean()):9.3f}{t[:, 0].max():9.3f}{np.median(t[:, 1]):9.3f}"
            + "".join(f"{np.median(t[:, k]):10.3f}{t[:, k].max():9.3f}{np.median(t[:, k + 2]):9.3f}" for k in (2, 3))
            + f"{(time.process_time() - begin) / seeds:9.1f}",
            flush=True,
        )
    if names and "aligned" not in names:
        return
    thin = {"thickness": 12.0, "holes": 4, "shift": 0.0, "axis": 0.0}
    for what, change in {
        "as it is": {},
        "ragged": {"ragged": True},
        "0.5 pixel rms": {"shift": 0.5 * np.sqrt(3.0)},
        "0.3 degrees": {"axis": 0.3},
    }.items():
        left = [
            align_tilt_series(film(s, **(thin | change))[0], kind="film").attrs["already_aligned"]
            for s in range(301, 301 + seeds)
        ]
        print(f"{what:<18}{sum(left)} of {seeds} taken for aligned", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12, sys.argv[2:])
