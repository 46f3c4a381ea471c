"""From raw frames to an aligned tilt series, against the truth of simulated acquisitions and of a measured film.

    python tests/validation/preprocess.py [particle] [film] [measured]

Known atoms, known corruption (4 frames per tilt that drift, affine scan distortion, Poisson and Gaussian noise at
1.7e4 e/A^2 per tilt, background, shifts of up to 15 pixels, a tilt axis turned by up to 2 degrees); the table says
what was recovered of it, and how the images come nearer to the clean ones from step to step. ``measured`` aligns
the film of ta_film_fov_A again, and once more after known shifts (needs AETDIST_DATA).
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from aetdist import pipeline
from aetdist.align import align_tilt_series, apply_alignment, shift_images
from aetdist.geometry import centred_coordinates, matrices_from_euler
from aetdist.io import Store
from aetdist.preprocess import calibrate_scan, correct_frames, preprocess_acquisition
from aetdist.preprocess.distortion import split_rotation
from aetdist.project.atoms import project_atoms
from aetdist.simulate import amorphous_film, nanoparticle, simulate_acquisition
from aetdist.simulate.inputs import heights_of, types_of

PIXEL = 0.35  # Angstrom
SIGMA = 0.6  # Angstrom
SCAN_PIXEL = 2.0  # Angstrom, of the calibration's images
#: What has to be reached: (particle, film); larger is better for none of them.
LIMITS = {
    "frame shifts, rms (pixels)": (0.08, 0.08),
    "distortion, largest error (%)": (0.1, 0.1),
    "gain, error (%)": (5.0, 5.0),
    "read noise, error (%)": (5.0, 5.0),
    "offset, error (counts)": (1.0, 1.0),
    "noise variance, error in dark and bright (%)": (5.0, 5.0),
    "tilt shifts along the axis, rms (pixels)": (0.5, 1.0),
    "tilt shifts across the axis, rms (pixels)": (0.5, 1.0),
    "tilt axis, error (degrees)": (0.1, 0.1),
    "background inside the mask, rms error (% of the signal)": (2.0, np.inf),
}


def particle_case(tilts: int = 27, field: int = 200, diameter: float = 34.0, seed: int = 4) -> dict[str, Any]:
    """A nanoparticle and its raw frames."""
    atoms = nanoparticle(diameter, seed=seed)
    angles = np.linspace(-66.0, 66.0, tilts)
    raw = simulate_acquisition(
        atoms, angles, pixel_size=PIXEL, sigma=SIGMA, field=(field, field), tilt_axis=1.4, seed=seed
    )
    return {"kind": "particle", "atoms": atoms, "raw": raw.load().chunk(tilt=1)}


def film_case(tilts: int = 27, field: int = 200, seed: int = 5) -> dict[str, Any]:
    """A film with holes that goes on beyond the field, and its raw frames."""
    angles = np.linspace(-60.0, 60.0, tilts)
    wide = (field + 40) * PIXEL
    atoms = amorphous_film((2.0 * wide + 60.0, wide), 14.0, waviness=2.0, wavelength=60.0, wedge=2.0, seed=seed)
    x, y = atoms["position"].values[:, 0], atoms["position"].values[:, 1]
    holes = np.zeros(len(x), bool)
    for at_x, at_y, radius in ((22.0, -16.0, 27.0), (-58.0, 30.0, 24.0), (75.0, 25.0, 24.0)):
        holes |= np.hypot(x - at_x, y - at_y) < radius
    atoms = atoms.isel(atom=np.flatnonzero(~holes))
    raw = simulate_acquisition(
        atoms, angles, pixel_size=PIXEL, sigma=SIGMA, field=(field, field), tilt_axis=-1.2, background=0.1, seed=seed
    )
    return {"kind": "film", "atoms": atoms, "raw": raw.load().chunk(tilt=1)}


def judge(case: dict[str, Any]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """What was recovered (see ``LIMITS``), and how the images agree with the clean ones after every step."""
    raw, kind = case["raw"], case["kind"]
    truth = raw.attrs
    matrix = raw["true_distortion"].values
    scan = calibrate_scan(*scan_images(matrix), pixel_size=SCAN_PIXEL)
    made = preprocess_acquisition(raw, kind=kind, distortion=scan.matrix.tolist()).compute()
    found = align_tilt_series(made, kind=kind).compute()
    done = apply_alignment(made, found, remake=functools.partial(correct_frames, raw, made)).compute()

    figures = {"distortion, largest error (%)": 100 * np.abs(scan.matrix - split_rotation(matrix)[0]).max()}
    kept = made["frame_kept"].values
    error = made["frame_shift"].values - raw["true_frame_shift"].values
    figures["frame shifts, rms (pixels)"] = rms(error[:, 1:][kept[:, 1:]])
    for name in ("gain", "read_noise"):
        figures[f"{name.replace('_', ' ')}, error (%)"] = 100 * abs(
            made.attrs[f"noise_{name}"] / truth[f"true_{name}"] - 1
        )
    figures["offset, error (counts)"] = abs(made.attrs["noise_offset"] - truth["true_offset"])
    figures["noise variance, error in dark and bright (%)"] = variance_error(made.attrs, raw)
    gauge, left = shift_error(done, raw)
    figures["tilt shifts along the axis, rms (pixels)"] = rms(left[:, 0])
    figures["tilt shifts across the axis, rms (pixels)"] = rms(left[:, 1])
    figures["tilt axis, error (degrees)"] = abs(float(done["tilt_axis"]) - float(raw["true_tilt_axis"]))
    inside = done["object_mask"].values & done["mask"].values
    background = done["background"].values - raw["true_background"].values
    signal = raw["true_images"].values[inside].mean()
    figures["background inside the mask, rms error (% of the signal)"] = 100 * rms(background[inside]) / signal
    return figures, agreements(case, made, done, gauge)


def agreements(
    case: dict[str, Any], made: xr.Dataset, done: xr.Dataset, gauge: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Mean correlation of the images with the clean ones after every step, and their relative difference in %.

    Up to the background, the clean images are seen where the microscope left the tilt; then where it belongs.
    """
    raw, here = case["raw"], case["raw"]["true_shift"].values
    still = made.assign(distortion=(("axis", "scan_axis"), np.eye(2)))
    one = still.assign(frame_kept=made["frame_kept"] & (made["frame"] == 0))
    plain = {"denoised": False, "background": False}
    in_place, moved = clean(case, here), clean(case, gauge)
    steps = {
        "first frame": (correct_frames(raw, one, **plain), in_place),
        "registered": (correct_frames(raw, still, **plain), in_place),
        "distortion undone": (correct_frames(raw, made, **plain), in_place),
        "denoised": (correct_frames(raw, made, background=False), in_place),
        "background subtracted": (made, in_place),
        "the same, where it belongs": (made, moved),
        "aligned": (done, moved),
    }
    counts = case["raw"].attrs["simulation_counts_per_intensity"]
    return {name: agreement(series, counts * truth) for name, (series, truth) in steps.items()}


def clean(case: dict[str, Any], shift: np.ndarray) -> np.ndarray:
    """Clean images of the atoms, moved by a shift (tilt, [y, x]) in pixels; exact."""
    raw, atoms = case["raw"], case["atoms"]
    ny, nx = raw.sizes["y"], raw.sizes["x"]
    angles, heights = raw["true_angles"].values, heights_of(atoms, types_of(atoms), None)
    images = [
        project_atoms(
            atoms["position"].values,
            angles[i : i + 1],
            heights=heights,
            sigmas=SIGMA,
            x=centred_coordinates(nx, PIXEL) - shift[i, 1] * PIXEL,
            y=centred_coordinates(ny, PIXEL) - shift[i, 0] * PIXEL,
            pixel_size=PIXEL,
        )[0]
        for i in range(len(angles))
    ]
    return np.stack(images)


def agreement(series: xr.Dataset, truth: np.ndarray) -> tuple[float, float]:
    """Over measured pixels, mean over tilts: correlation (no constant changes it), sum |I - I0| / sum |I0| in %."""
    found = []
    for i in range(len(truth)):
        mask = series["mask"][i].values
        if mask.any():
            image, clean_image = series["images"][i].values[mask], truth[i][mask]
            difference = 100 * np.abs(image - clean_image).sum() / np.abs(clean_image).sum()
            found.append((np.corrcoef(image, clean_image)[0, 1], difference))
    correlation, difference = np.mean(found, axis=0)
    return float(correlation), float(difference)


def shift_error(done: xr.Dataset, raw: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Shifts that only move the sample as a whole, [y, x] in pixels, and what is wrong beside them.

    A sample moved by v is seen moved by R_t v: no tilt series can tell. ``[along, across]`` of the error are taken
    at the true axis.
    """
    matrices = matrices_from_euler(raw["true_angles"].values)[:, [1, 0]]  # rows y, x of sample (x, y, z)
    used = done["used"].values
    error = done["shift"].values - raw["true_shift"].values
    v, *_ = np.linalg.lstsq(matrices[used].reshape(-1, 3), error[used].reshape(-1), rcond=None)
    moved = matrices @ v
    left = (error - moved)[used]
    turn = np.deg2rad(float(raw["true_tilt_axis"]))
    along = left @ [np.cos(turn), -np.sin(turn)]
    across = left @ [np.sin(turn), np.cos(turn)]
    return -moved, np.stack([along, across], axis=1)


def variance_error(found: dict[str, Any], raw: xr.Dataset) -> float:
    """Largest error of the variance in % between the first and the last percentile of the counts of a frame."""
    names = ("gain", "offset", "read_noise")
    true, said = ([float(d[f"{p}_{n}"]) for n in names] for d, p in ((raw.attrs, "true"), (found, "noise")))
    counts = np.quantile((raw["true_images"] + raw["true_background"]).values, (0.01, 0.99)) + true[1]
    right, wrong = (gain * (counts - offset) + read**2 for gain, offset, read in (true, said))
    return float(100 * np.abs(wrong / right - 1).max())


def rms(values: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else float("nan")


def scan_images(matrix: np.ndarray, seed: int = 0) -> tuple[list[np.ndarray], list[float]]:
    """Images of particles at low magnification with the same scan, at several rotations of the stage."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(-4, 5) * 34.0] * 2), -1).reshape(-1, 2)
    particles = grid + random.uniform(-9.0, 9.0, grid.shape)
    widths, angles = random.uniform(3.0, 4.5, len(grid)), [0.0, 31.0, 58.0, 88.0]
    y, x = np.meshgrid(*[centred_coordinates(400)] * 2, indexing="ij")
    images = []
    for angle in np.deg2rad(angles):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        image = np.full(y.shape, 10.0)
        for (v, u), width in zip(particles @ (matrix @ turn).T, widths, strict=True):
            image += 200.0 * np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * width**2))
        images.append(random.poisson(image).astype(np.float64))
    return images, angles


def measured_series(folder: str | Path) -> tuple[xr.Dataset, xr.Dataset]:
    """The measured film as its authors aligned it, and what the alignment finds in it."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "film.zarr"
        pipeline.import_series(
            [Path(folder) / "ta_film_fov_A.h5"], path, images="images", angles="angles_deg", mask="mask",
            x_pixels="x_pix", y_pixels="y_pix", pixel_size=0.3216,
        )  # fmt: skip
        series = Store.open(path).read("tilt_series/aligned").load()
    return series, align_tilt_series(series, kind="film").compute()


def measured(folder: str | Path, *, iterations: int = 30, seed: int = 7) -> dict[str, float]:
    """R of the measured film as its authors aligned it, and as it is aligned again here."""
    from aetdist.reconstruct import reconstruct_resire

    series, found = measured_series(folder)
    again = align_tilt_series(series, kind="film", keep_aligned=False).compute()
    moves = np.random.default_rng(seed).uniform(-6.0, 6.0, (series.sizes["tilt"], 2))
    spoilt = shift_images(series, moves).compute()
    mended = align_tilt_series(spoilt, kind="film").compute()

    def r_factor(aligned: xr.Dataset) -> float:
        volume = reconstruct_resire(aligned.compute(), shape=(921, 136, 151), iterations=iterations)
        return float(np.nanmean(volume["r_factor"].values[-1]))

    together = mended.assign(shift=mended["shift"] + moves)
    return {
        "recognised as aligned": float(found.attrs["already_aligned"]),
        "R as its authors aligned it": r_factor(series),
        "R aligned again": r_factor(apply_alignment(series, again)),
        "R after shifts of up to 6 pixels, aligned": r_factor(apply_alignment(series, together)),
    }


def show_steps(title: str, rows: dict[str, tuple[float, float]]) -> None:
    """Print how the images agree with the clean ones after every step."""
    print(f"\n{title:<62}correlation   difference (%)")
    for name, (correlation, difference) in rows.items():
        print(f"  {name:<60}{correlation:12.6f}{difference:14.2f}")


def show(title: str, rows: dict[str, float], limits: dict[str, float] | None = None) -> None:
    """Print one table."""
    print(f"\n{title}")
    for name, value in rows.items():
        limit = (limits or {}).get(name, np.inf)
        print(f"  {name:<60}{value:9.4f}" + (f"   at most {limit:g}" if np.isfinite(limit) else ""))


def main(names: list[str]) -> None:
    """Print the tables."""
    for name in names or ["particle", "film", "measured"]:
        begin = time.perf_counter()
        if name == "measured":
            show("measured film", measured(os.environ["AETDIST_DATA"]))
        else:
            case = {"particle": particle_case, "film": film_case}[name]()
            figures, steps = judge(case)
            column = ("particle", "film").index(name)
            show(f"simulated {name}: errors", figures, {key: limit[column] for key, limit in LIMITS.items()})
            show_steps(f"simulated {name}: agreement with the clean images", steps)
        print(f"  ({time.perf_counter() - begin:.0f} s)")


if __name__ == "__main__":
    main(sys.argv[1:])
