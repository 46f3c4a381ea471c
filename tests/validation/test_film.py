"""The measured film of Yuan et al.: a cut of the field in windows on two workers, against what they published."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aetdist import pipeline
from aetdist.cluster import connect
from aetdist.io import Record, Store

pytestmark = [pytest.mark.validation, pytest.mark.slow]

SPEC = importlib.util.spec_from_file_location("film", Path(__file__).with_name("film.py"))
film = importlib.util.module_from_spec(SPEC)  # type: ignore[arg-type]
SPEC.loader.exec_module(film)  # type: ignore[union-attr]

IMPORT = {
    "images": "images",
    "angles": "angles_deg",
    "mask": "mask",
    "x_pixels": "x_pix",
    "y_pixels": "y_pix",
    "pixel_size": 0.3216,
}
COLUMNS = slice(90, 270)  # of 401: the rest is for the README's commands


@pytest.fixture(scope="module")
def scanned(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A cut of the field: imported, scanned in 2 x 3 windows and traced on two workers."""
    folder = tmp_path_factory.mktemp("film")
    pipeline.import_series([data_folder / "ta_film_fov_A.h5"], folder / "whole.zarr", **IMPORT)
    path = folder / "cut.zarr"
    with Store.open(folder / "whole.zarr") as store, Store.create(path) as cut:
        series = store.read("tilt_series/aligned").isel(x=COLUMNS)
        cut.write("tilt_series/aligned", series, record=Record("cut"), chunks={"tilt": 1})
    with connect(workers=2, memory_limit="4GiB") as client:
        summary = pipeline.scan(path, window=(110, 73), overlap=50, thickness=48.6)
        summary["tasks"] = client.run(lambda dask_worker: len(dask_worker.state.log))
        pipeline.trace(path)
    return path, summary, film.judge(path, data_folder, edge=16)  # its own edges, 5 Angstrom, are not the field's


def test_film__matches_the_measured_pixels(scanned: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    """R over the cut's measured pixels; both workers worked; the client never held the film."""
    _, summary, figures = scanned
    assert summary["n_windows"] >= 4
    assert figures["r_factor_mean"] <= 0.175
    assert len(summary["tasks"]) == 2 and all(summary["tasks"].values())
    film_bytes = 4 * int(np.prod(summary["shape"]))
    assert summary["peak_memory_client_bytes"] < summary["peak_memory_bytes"] or film_bytes < 2**28


def test_film__windows_agree(scanned: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    """Where they are blended, pooled over voxels."""
    _, _, figures = scanned
    assert figures["disagreement_l1"] <= 0.18
    assert figures["disagreement_correlation"] >= 0.97


def test_film__is_the_published_one(scanned: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    """Volume and atoms; every threshold is chosen without them."""
    _, _, figures = scanned
    assert figures["correlation"] >= 0.955
    assert figures["f1"] >= 0.86
    assert figures["rms"] <= 0.26
