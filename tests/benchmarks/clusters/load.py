"""A film that nobody could simulate here, and stand-ins for what the tasks of its scan compute."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from distributed import Client

from aetdist.geometry import centred_coordinates, euler_from_tilts, matrices_from_euler
from aetdist.io import Record, Store
from aetdist.progress import listen
from aetdist.reconstruct.film import CoarseFilm
from aetdist.reconstruct.grid import Field, volume_grid
from aetdist.reconstruct.windows import plan_windows
from aetdist.schema import EULER, SERIES_CHUNKS, TILT_SERIES, with_units

from .processes import counted, total_cpu

PIXEL = 0.4  # Angstrom
TILTS = np.linspace(-60, 60, 41)


def film_plan(field: int, window: int, overlap: int, thickness: float) -> dict[str, float]:
    """Seconds that planning the windows takes, their number, and how large the plan of one is."""
    matrices = matrices_from_euler(euler_from_tilts(TILTS))
    seen = Field(matrices, (field, field), (-(field // 2), -(field // 2)), PIXEL)
    first, shape = volume_grid(seen, None, thickness)
    coarse = CoarseFilm.of(first, shape, 3)
    maps = np.zeros(coarse.shape[1:]), np.full(coarse.shape[1:], thickness)
    begin = time.perf_counter()
    plan = plan_windows(seen, first, shape, coarse, (window, window), overlap, *maps)
    seconds = time.perf_counter() - begin
    return {
        "n_windows": len(plan.windows),
        "seconds": seconds,
        "bytes_per_window": len(pickle.dumps(plan.windows)) / len(plan.windows),
    }


def series_of(path: Path, field: int) -> None:
    """A store with a tilt series of empty images of so many pixels along both axes."""
    axis = centred_coordinates(field, PIXEL)
    shape, chunks = (len(TILTS), field, field), (1, 512, 512)
    angles = euler_from_tilts(TILTS)
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), da.zeros(shape, chunks=chunks, dtype=np.float32)),
            "mask": (("tilt", "y", "x"), da.ones(shape, chunks=chunks, dtype=bool)),
            "angles": (("tilt", "euler"), angles),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(angles)),
            "pixel_size": PIXEL,
        },
        {"tilt": np.arange(len(TILTS)), "y": axis, "x": axis, "euler": list(EULER)},
    )
    with Store.create(path) as store:
        store.write(
            "tilt_series/aligned", with_units(series, TILT_SERIES), record=Record("stand-in"), chunks=SERIES_CHUNKS
        )


def stand_in(empty: bool) -> None:
    """Replace, in this process, what the tasks of a scan compute; all that they write is written, unless `empty`."""
    from aetdist.io import require_record, write_region
    from aetdist.reconstruct import film, reprojection, scan, stitch

    def no_coarse(path: str, series: str, field: Any, coarse: Any, iterations: int) -> np.ndarray:
        return np.zeros(coarse.shape, np.float32)

    def flat(density: np.ndarray, z: np.ndarray, voxel: float) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(density.shape[1:]), np.full(density.shape[1:], (z[-1] - z[0]) / 2)

    def no_window(path: str, window: Any, *_: Any) -> np.ndarray:
        return np.zeros(window.shape, np.float32)

    def no_chunk(chunk: Any, path: str, digest: str, plan: Any, groups: Any) -> np.ndarray:
        rows, columns = chunk[0]
        shape = (plan.shape[0], rows.stop - rows.start, columns.stop - columns.start)
        require_record(path, groups[2], digest)
        for name, kind in (("density", np.float32), ("support", bool)):
            write_region(path, groups[2], name, (slice(0, shape[0]), rows, columns), np.zeros(shape, kind))
        write_region(path, groups[2], "disagreement", (rows, columns), np.zeros(shape[1:], np.float32))
        return np.zeros(stitch.N_SUMS)

    def nothing(*_: Any) -> None:
        return None

    def no_strip(strip: Any, *_: Any) -> np.ndarray:
        return np.ones((strip.tilts[1] - strip.tilts[0], 2))

    scan.reconstruct_coarse = no_coarse  # type: ignore[assignment]
    film.height_and_thickness = flat  # type: ignore[assignment]
    scan.reconstruct_window = no_window  # type: ignore[assignment]
    stitch.stitch_chunk = (lambda *_: np.zeros(stitch.N_SUMS)) if empty else no_chunk
    if empty:
        scan._window_task = nothing
    reprojection.compare_strip = no_strip  # type: ignore[assignment]


@contextmanager
def unchecked(empty: bool) -> Iterator[None]:
    """Where tasks write nothing, take groups of the store for complete without looking."""
    import zarr

    finish = Store.finish

    def believe(store: Store, group: str) -> None:
        zarr.open_group(str(store.path), path=group, mode="r+").attrs["status"] = "complete"

    if empty:
        Store.finish = believe  # type: ignore[method-assign]
    try:
        yield
    finally:
        Store.finish = finish  # type: ignore[method-assign]


class Stages:
    """What each kind of task of a scan costs, from when the driver begins it until its last task is done."""

    def __init__(self, client: Client) -> None:
        self.client, self.figures = client, dict[str, dict[str, float]]()
        self._sent = counted(client)
        self._began: dict[str, tuple[float, int, dict[str, float]]] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Follow what the driver reports."""
        with listen(self._follow):
            yield

    def _follow(self, done: int, total: int | None, label: str) -> None:
        now = time.perf_counter()
        if done == 0:
            self._began[label] = now, self._sent["bytes"], total_cpu(self.client)
            return
        begin, sent, cpu = self._began[label]
        if done == 1:
            self.figures[label] = {"n_tasks": float(total or 0), "first_result_s": now - begin}
        if done == total:
            used = total_cpu(self.client)
            self.figures[label] |= {
                "wall_s": now - begin,
                "sent_bytes_per_task": (self._sent["bytes"] - sent) / total,
                **{f"{who}_ms_per_task": 1e3 * (used[who] - cpu[who]) / total for who in used},
            }
