"""A small film that is scanned in six windows, and what is recorded of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import aetdist as aet
from aetdist.io import BlockLedger, Record, Store, open_dataset

SCAN = {"window": (48, 40), "overlap": 22, "thickness": 22.0, "iterations": 12, "coarse_iterations": 12}
N_WINDOWS, PASSES = 6, 2


def film_series(path: Path, dose: float) -> Path:
    """A store with the tilt series of a film that is larger than the field."""
    atoms = aet.amorphous_film((64.0, 44.0), 14.0, species=("Ta",), waviness=2.0, wavelength=60.0, seed=7)
    angles = np.array([[0.2, t, -0.1] for t in np.linspace(-60, 60, 21)])
    tilts = aet.simulate_tilt_series(atoms, angles, pixel_size=0.5, field=(96, 56), dose=dose, seed=8)
    with Store.create(path) as store:
        store.write("tilt_series/aligned", tilts, record=Record("simulate", {"seed": 8}), chunks={"tilt": 1})
    return path


def copy(series: Path, folder: Path) -> Path:
    """The store again, to scan in."""
    return Path(shutil.copytree(series, folder / "film.zarr"))


def density(path: Path) -> np.ndarray:
    """The film volume."""
    return open_dataset(path, "volume")["density"].values


def recorded(path: Path) -> dict[str, int]:
    """When the block of every recorded window, of every pass, was written."""
    written = {}
    for number in range(1, PASSES + 1):
        group = f"scan/windows_{number}"
        if (path / group / "blocks/done/zarr.json").is_file():
            for i in np.flatnonzero(BlockLedger(str(path), group).done()):
                written[f"{group}/{i}"] = (path / group / f"density/c/{i}/0/0/0").stat().st_mtime_ns
    return written


def wait_for_windows(path: Path, n: int, alive: Callable[[], bool] = lambda: True) -> None:
    """Until `n` windows are recorded."""
    for _ in range(2400):
        if len(recorded(path)) >= n:
            return
        assert alive()
        time.sleep(0.05)
    raise AssertionError(f"{n} windows were not finished within two minutes")
