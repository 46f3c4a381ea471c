"""Angles and shifts refined, against the truth of simulated series and against published angles.

    python tests/validation/angles.py [small] [particle] [sample] [film] [perturbed] [returns]

``particle``: the paper's nanoparticle at its 55 tilts, with angular errors as in its Extended Data Fig. 4a (smooth and
random, up to a degree, on all three angles), shifts of up to 2 pixels and noise; ``small``: its core. ``sample``:
RESIRE's test object with errors of 0.5 degree and 1 pixel. ``film``: the measured film from its published angles;
``perturbed``: with errors of 0.5 degree and 2 pixels added to them; ``returns``: where such starts end, against where
the published one does. All but ``small`` need AETDIST_DATA.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from aetdist._rounds import Problem
from aetdist.angles.tilt_series import rotation_between
from aetdist.geometry import centred_coordinates, euler_from_tilts, matrices_from_euler
from aetdist.geometry.gauge import remove_common_motion
from aetdist.project.atoms import project_atoms
from aetdist.refinement import reconstruct_refined
from aetdist.schema import EULER, TILT_SERIES, with_units
from aetdist.simulate import nanoparticle

PIXEL, SIGMA = 0.347, 0.6  # Angstrom
HEIGHTS = (0.6, 1.0, 1.7)  # of the three types: roughly as their atomic numbers to the power of 1.6


def data(name: str) -> h5py.File:
    """A published data set."""
    return h5py.File(Path(os.environ["AETDIST_DATA"]) / name)


def as_series(
    images: np.ndarray, euler: np.ndarray, mask: np.ndarray, y: np.ndarray, x: np.ndarray, pixel_size: float
) -> xr.Dataset:
    """A tilt series in memory."""
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images.astype(np.float32)),
            "mask": (("tilt", "y", "x"), mask),
            "angles": (("tilt", "euler"), np.array(euler)),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(euler)),
            "pixel_size": ((), pixel_size),
        },
        {"tilt": np.arange(len(images)), "y": y, "x": x, "euler": list(EULER)},
    )
    return with_units(series, TILT_SERIES)


def angular_errors(n: int, random: np.random.Generator) -> np.ndarray:
    """Errors of the three angles in degrees, (n, 3): smooth along the series, and random."""
    t = np.arange(n) / n
    waves = [
        sum(random.normal() * np.sin(2 * np.pi * (f * t + random.random())) for f in (0.5, 1.0, 2.0)) for _ in range(3)
    ]
    return 0.35 * np.stack(waves, axis=1) + random.normal(0.0, 0.25, (n, 3))


def atoms_case(
    positions: np.ndarray, types: np.ndarray, angles: np.ndarray, n: int, *, noise: float, seed: int
) -> dict[str, Any]:
    """A particle with the errors that are to be found; `noise` as part of the particle's mean signal."""
    random = np.random.default_rng(seed)
    x = centred_coordinates(n, PIXEL)
    shifts = random.uniform(-2.0, 2.0, (len(angles), 2))
    heights = np.array(HEIGHTS)[types - 1]
    images = np.stack(
        [
            project_atoms(
                positions, angles[[t]], heights=heights, sigmas=SIGMA, pixel_size=PIXEL,
                x=x - shifts[t, 1] * PIXEL, y=x - shifts[t, 0] * PIXEL,
            )[0]
            for t in range(len(angles))
        ]
    )  # fmt: skip
    deviation = noise * images[images > 0.05 * images.max()].mean()
    noise_ = random.normal(0.0, deviation, images.shape)
    reference = noise_ + project_atoms(
        positions, angles, heights=heights, sigmas=SIGMA, pixel_size=PIXEL, x=x, y=x
    )  # the same noise, nothing wrong
    images += noise_
    wrong = angles + angular_errors(len(angles), random)
    mask = np.ones(images.shape, bool)
    return {
        "series": as_series(images, wrong, mask, x, x, PIXEL),
        "reference": as_series(reference, angles, mask, x, x, PIXEL),
        "true_angles": angles,
        "true_shifts": shifts,
        "options": {},
    }


def small_case(seed: int = 0, noise: float = 0.05) -> dict[str, Any]:
    """A made-up glass of some 1,700 atoms at 41 tilts."""
    atoms = nanoparticle(40.0, seed=seed)
    angles = euler_from_tilts(np.linspace(-70.0, 70.0, 41))
    random = np.random.default_rng(seed)
    angles[:, [0, 2]] += random.normal(0.0, 0.3, (41, 2))
    positions = atoms["position"].values
    types = random.choice([1, 2, 3], len(positions), p=[0.45, 0.38, 0.17])
    return atoms_case(positions, types, angles, 136, noise=noise, seed=seed)


def particle_case(seed: int = 1, noise: float = 0.05) -> dict[str, Any]:
    """The paper's nanoparticle, 18,356 atoms at 55 tilts."""
    file = data("metallic_glass_nanoparticle.h5")
    positions, angles = (file[name][:].astype(np.float64) for name in ("positions_angstrom", "angles_deg"))
    return atoms_case(positions, file["types"][:], angles, 288, noise=noise, seed=seed)


def sample_case(seed: int = 1) -> dict[str, Any]:
    """RESIRE's test object with errors of half a degree and a pixel."""
    file = data("resire_sample_64.h5")
    images, angles = file["projections"][:], file["angles_deg"][:].astype(np.float64)
    random = np.random.default_rng(seed)
    wrong = angles + random.normal(0.0, 0.5, angles.shape)
    shifts = random.normal(0.0, 1.0, (len(angles), 2))
    x = centred_coordinates(64)
    reference = as_series(images, angles, np.ones(images.shape, bool), x, x, 1.0)
    series = reference.copy(deep=True)
    series["angles"][:] = wrong
    return {
        "series": shifted(series, shifts),
        "reference": reference,
        "true_angles": angles,
        "true_shifts": -shifts,
        "options": {},
    }


def film_case(seed: int | None = None) -> dict[str, Any]:
    """The measured film, as published or with errors of half a degree and two pixels."""
    file = data("ta_film_fov_A.h5")
    stored = file["images"]
    images = stored[:] * stored.attrs["scale_factor"] + stored.attrs["add_offset"]
    mask, angles = file["mask"][:].astype(bool), file["angles_deg"][:].astype(np.float64)
    size = 0.3216
    series = as_series(
        np.where(mask, images, 0.0), angles, mask, file["y_pix"][:] * size, file["x_pix"][:] * size, size
    )
    reference, shifts = series.copy(deep=True), np.zeros((len(angles), 2))
    if seed is not None:
        random = np.random.default_rng(seed)
        series["angles"][:] = angles + random.normal(0.0, 0.5, angles.shape)
        shifts = random.normal(0.0, 2.0, (len(angles), 2))
        series = shifted(series, shifts)
    return {
        "series": series,
        "reference": reference,
        "true_angles": angles,
        "true_shifts": -shifts,
        "options": {"shape": (921, 136, 151), "model": "joint"},
        "measured": True,
    }


def shifted(series: xr.Dataset, shifts: np.ndarray) -> xr.Dataset:
    """Images moved by cubic splines: aligned(r) = image(r + shift)."""
    from aetdist.align import shift_images

    return shift_images(series, shifts).compute()


def errors(
    angles: np.ndarray, shifts: np.ndarray, case: dict[str, Any], used: np.ndarray | None = None
) -> dict[str, float]:
    """What is wrong, without the rotation and translation that all tilts share: rotations in degrees, pixels.

    Shifts are those of the middle of the field: where it lies off the rotation's origin, a turn in the image and a
    shift of the origin look alike.
    """
    truth, series = matrices_from_euler(case["true_angles"]), case["series"]
    used = np.ones(len(truth), bool) if used is None else used
    turned, left = remove_common_motion(matrices_from_euler(angles), shifts - case["true_shifts"], truth, used=used)
    wrong = rotation_between(truth, turned)
    size = float(series["pixel_size"])
    middle = np.array([(series[axis].values[0] + series[axis].values[-1]) / (2 * size) for axis in "xy"] + [0.0])
    left = left + np.cross(np.deg2rad(wrong), middle)[:, [1, 0]]
    _, left = remove_common_motion(truth, left, truth, used=used)
    wrong, left = wrong[used], left[used]
    return {
        "largest_rotation": float(np.abs(wrong).max()),
        "rotation_rms": float(np.sqrt((wrong**2).mean())),
        "rotation_rms_xyz": np.sqrt((wrong**2).mean(axis=0)).round(4).tolist(),
        "median_rotation": float(np.median(np.linalg.norm(wrong, axis=1))),
        "shift_rms": float(np.sqrt((left**2).mean())),
        "shift_rms_yx": np.sqrt((left**2).mean(axis=0)).round(4).tolist(),
    }


def judge(case: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Errors before and after, R of every round, and R with the true angles and shifts."""
    series = case["series"]
    begin, cpu = time.perf_counter(), time.process_time()
    _, found = reconstruct_refined(series, **{**case["options"], **options})
    spent = time.process_time() - cpu
    zero = np.zeros_like(case["true_shifts"])
    rounds = np.nanmean(found["round_r_factor"].values, axis=1)
    after = errors(found["angles"].values, found["shift"].values, case, found["used"].values)
    extra = {}
    if case.get("measured"):
        shape = case["options"]["shape"]
        published = case["true_angles"], case["true_shifts"]
        refined = found["angles"].values, found["shift"].values
        extra["held_out_r_factor"] = [held_out_r_factor(series, *each, shape) for each in (published, refined)]
    return extra | {
        "before": errors(series["angles"].values, zero, case),
        "after": after,
        "r_factor": rounds.round(5).tolist(),
        "claimed": {
            "rotation": float(np.sqrt(np.nanmean(found["angle_uncertainty"].values[:, 1] ** 2))),
            "shift": float(np.sqrt(np.nanmean(found["shift_uncertainty"].values ** 2))),
        },
        "flags": {int(t): str(f) for t, f in enumerate(found["flags"].values) if f},
        "stopped": found.attrs["stopped"],
        "r_factor_true": r_of_the_truth(case, found.attrs["round_iterations"]),
        "seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(spent, 1),
    }


def held_out_r_factor(
    series: xr.Dataset, angles: np.ndarray, shifts: np.ndarray, shape: tuple[int, int, int], folds: int = 5
) -> float:
    """R of tilts that the volumes which predict them do not know: every fifth is left out in turn."""
    problem = Problem.of(series, shape, None, "volume", 12, folds, (), False)
    return problem.evaluate(problem.start()._replace(matrices=matrices_from_euler(angles), shifts=shifts)).mean()


def r_of_the_truth(case: dict[str, Any], iterations: int) -> float:
    """R that a reconstruction reaches with the true angles and shifts."""
    from aetdist.reconstruct import reconstruct_resire

    grid = {key: value for key, value in case["options"].items() if key != "model"}
    volume = reconstruct_resire(case["reference"], solver="ordered_subsets", iterations=iterations, **grid)
    return float(np.nanmean(volume["r_factor"].values[-1]))


def returns(seeds: tuple[int, ...] = (3, 11)) -> dict[str, Any]:
    """Where the measured film ends from spoilt starts, against where it ends from the published one."""
    ends = {}
    for seed in (None, *seeds):
        case = film_case(seed)
        _, found = reconstruct_refined(case["series"], **case["options"], rounds=3)
        shifts = found["shift"].values - case["true_shifts"]
        ends[seed] = found["angles"].values, shifts, float(np.nanmean(found["round_r_factor"].values[-1]))
    case = film_case()
    there = {**case, "true_angles": ends[None][0], "true_shifts": ends[None][1]}
    return {
        str(seed): {
            "from the published angles' end": errors(*ends[seed][:2], there),
            "from the published angles": errors(*ends[seed][:2], case),
            "r_factor": ends[seed][2],
        }
        for seed in ends
    }


CASES = {
    "small": small_case,
    "particle": particle_case,
    "sample": sample_case,
    "film": film_case,
    "perturbed": lambda: film_case(3),
}


def main(names: list[str]) -> None:
    """Print the figures as JSON."""
    for name in names or [*CASES, "returns"]:
        found = returns() if name == "returns" else judge(CASES[name]())
        print(json.dumps({name: found}, indent=1), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
