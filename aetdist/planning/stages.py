"""Forecasts of the stages whose cost follows from the plan: scan, reconstruction, tracing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..blocks.halo import block_cores, block_edges, with_halo
from ..blocks.slabs import Slab, bytes_per_worker, plan_slabs, slab_chunks
from ..reconstruct.film import coarse_film
from ..reconstruct.grid import Field, volume_grid
from ..reconstruct.memory import coarse_bytes, require_one_piece, require_scan, solver_bytes, window_bytes
from ..reconstruct.reprojection import PIECE_VOXELS, cut_strips
from ..reconstruct.resire import ONE_PIECE_ADVICE
from ..reconstruct.slabs import SHARE
from ..reconstruct.windows import ScanPlan, check_windows, plan_windows
from ..trace.peaks import LARGEST_BLOCK, SMALLEST_BLOCK, Search
from .forecast import Forecast, Step
from .probes import Probe, Rates, measure_rates
from .workers import Workers

FORECAST = ("scan", "reconstruct", "trace")
_PIXEL_BYTES = 5  # image and mask
_TRACED = 6  # arrays as large as a block that the search for peaks holds
_STITCHED = 3  # arrays that the stitching writes
_OPENED = 6  # groups and ledgers that a task opens


@dataclass(frozen=True)
class Images:
    """Where the images are: the field, and the stored chunk (y, x)."""

    field: Field
    chunk: tuple[int, int]

    @classmethod
    def of(cls, series: xr.Dataset) -> Images:
        """Those of a tilt series, none of which is read."""
        images = series["images"]
        stored = images.encoding.get("chunks") or images.encoding.get("preferred_chunks", {})
        if isinstance(stored, Mapping):
            stored = tuple(stored.get(d, n) for d, n in images.sizes.items())
        shape = images.shape if len(stored) != 3 else stored
        return cls(Field.of(series), (int(shape[1]), int(shape[2])))

    @property
    def n_tilts(self) -> int:
        """Number of tilts."""
        return len(self.field.matrices)

    @property
    def pixels(self) -> int:
        """Of all images."""
        return self.n_tilts * math.prod(self.field.detector_shape)

    def reading(self, crop: tuple[int, int], rates: Rates) -> tuple[float, int]:
        """Seconds and bytes that crops (y, x) of all tilts take to read: whole chunks are decoded."""
        chunks = self.n_tilts * math.prod(
            min(math.ceil(n / c), (k - 1) / c + 1)
            for n, c, k in zip(self.field.detector_shape, self.chunk, crop, strict=True)
        )
        size = chunks * _PIXEL_BYTES * math.prod(self.chunk)
        return 2 * chunks * rates.chunk_read + size * rates.byte_read, int(size)


def forecast_stages(
    stages: Mapping[str, Mapping[str, Any]],
    series: xr.Dataset | None,
    workers: Workers,
    volume: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None,
) -> tuple[list[Forecast], int]:
    """Computes: what each stage will take, the kernels being timed for it.

    Parameters
    ----------
    stages : mapping of str to mapping
        Names and checked keywords, in the order of the experiment.
    series : xarray.Dataset, optional
        ``schema.TILT_SERIES``, lazy: no image is read. Without it no volume can be planned.
    workers : Workers
    volume : tuple, optional
        Shape and stored chunk (z, y, x) of a volume that is there; else of the one that a stage will make.

    Returns
    -------
    forecasts : list of Forecast
    own_bytes : int
        What a worker holds without arrays.

    Raises
    ------
    InputError
        If an option is out of range.
    CapacityError
        If a reconstruction in slabs does not fit; the others say what they would take.
    """
    images = None if series is None else Images.of(series)
    scanned = ScanCase.of(stages["scan"], images) if "scan" in stages and images else None
    whole = OnePiece.of(stages["reconstruct"], images, workers) if "reconstruct" in stages and images else None
    rates = measure_rates([*(scanned.probes if scanned else ()), *(whole.probes if whole else ())], workers)
    made = [case for case in (scanned, whole) if case is not None]
    if made:
        volume = made[0].volume
    forecasts = []
    for name, keywords in stages.items():
        if name in ("scan", "reconstruct") and made:
            forecasts.append(made[0].forecast(rates, workers))
        elif name == "trace" and volume is not None:
            forecasts.append(_trace(keywords, volume, images, rates))
        else:
            forecasts.append(Forecast(name, note="not forecast" if name not in FORECAST else "needs a tilt series"))
    return forecasts, rates.own_bytes


def require_fit(name: str, keywords: Mapping[str, Any], series: xr.Dataset, workers: Workers) -> None:
    """Refuse a reconstruction that cannot fit into the workers, from the series' coordinates alone.

    Raises
    ------
    CapacityError
        Naming the option that makes it fit.
    InputError
        If an option is out of range.
    """
    images = Images.of(series)
    if name == "scan":
        size, _ = check_windows(keywords["window"], keywords["overlap"], images.field)
        _, shape = volume_grid(images.field, None, keywords["thickness"])
        require_scan(
            images.field,
            shape,
            coarse_film(images.field, keywords["thickness"], size),
            size,
            solver=keywords["solver"],
            final_iterations=keywords["final_iterations"],
            available=workers.task_bytes,
        )
    elif name == "reconstruct":
        first, shape = volume_grid(images.field, keywords["shape"], keywords["thickness"])
        if keywords["slabs"] is None:
            require_one_piece(shape, images.pixels, ONE_PIECE_ADVICE, keywords["solver"], available=workers.task_bytes)
        else:
            _slabs(images, first, shape, keywords["slabs"], workers)


# -- scan ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ScanCase:
    """A scan as it would be planned for a film that fills its thickness."""

    images: Images
    keywords: Mapping[str, Any]
    plan: ScanPlan
    probes: tuple[Probe, ...]

    @classmethod
    def of(cls, keywords: Mapping[str, Any], images: Images) -> ScanCase:
        """Plan it; the film is flat, until the coarse film tells."""
        field, thickness = images.field, keywords["thickness"]
        size, _ = check_windows(keywords["window"], keywords["overlap"], field)
        first, shape = volume_grid(field, None, thickness)
        coarse = coarse_film(field, thickness, size)
        maps = np.zeros(coarse.shape[1:]), np.full(coarse.shape[1:], thickness)
        plan = plan_windows(field, first, shape, coarse, keywords["window"], keywords["overlap"], *maps)
        typical = sorted(plan.windows, key=lambda w: math.prod(w.shape))[len(plan.windows) // 2]
        pixels = tuple(-(-n // coarse.factor) for n in field.detector_shape)
        probes = (
            Probe("coarse", "fista", field.matrices, coarse.shape, pixels),  # type: ignore[arg-type]
            Probe("window", keywords["solver"], field.matrices, typical.shape, typical.crop_shape),
        )
        return cls(images, keywords, plan, probes)

    @property
    def volume(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Shape and stored chunk (z, y, x) of the film."""
        return self.plan.shape, self.plan.chunk_shape

    def forecast(self, rates: Rates, workers: Workers) -> Forecast:
        """All steps of all passes."""
        plan, passes = self.plan, self.keywords["passes"]
        steps = [self._coarse(rates)]
        for number in range(1, passes + 1):
            steps += [self._windows(rates, number), self._stitching(rates, number)]
        steps.append(self._r_factor(rates))
        note = "forecast without the iterations over the whole film" if self.keywords["final_iterations"] else ""
        block = 4 * plan.shape[0] * math.prod(plan.kept_shape)
        stored = 4 * math.prod(plan.coarse.shape) + passes * (len(plan.windows) * block + 5 * math.prod(plan.shape))
        return Forecast("scan", tuple(steps), stored, note, len(plan.windows), rates.loading)

    def _coarse(self, rates: Rates) -> Step:
        voxels = math.prod(self.plan.coarse.shape)
        seconds = (
            self.images.pixels * rates.pixel_binned
            + rates.prepare["coarse"]
            + self.keywords["coarse_iterations"] * rates.iteration["coarse"]
            + voxels * rates.voxel_textured
        )
        need = coarse_bytes(self.plan.coarse, self.images.field)
        return Step("coarse film", 1, need, seconds, _PIXEL_BYTES * self.images.pixels)

    def _windows(self, rates: Rates, number: int) -> Step:
        plan, solver = self.plan, self.keywords["solver"]
        windows, probe = plan.windows, self.probes[1]
        voxels = [math.prod(w.shape) for w in windows]
        mean, crop = sum(voxels) / len(voxels), windows[0].crop_shape
        reading, size = self.images.reading(crop, rates)
        size += 4 * int(mean) if number > 1 else 0
        started = mean * (rates.voxel_started if number == 1 else 4 * rates.byte_read)
        each = -(-self.keywords["iterations"] // self.keywords["passes"])
        solved = (each + 0.5) * rates.iteration["window"] * mean / math.prod(probe.shape)
        block = 4 * plan.shape[0] * math.prod(plan.kept_shape)
        seconds = _OPENED * rates.open + reading + started + rates.prepare["window"] + solved
        return Step(
            f"windows, pass {number}",
            len(windows),
            max(window_bytes(w.shape, w.crop_shape, self.images.n_tilts, solver) for w in windows),
            seconds + rates.chunk_written + block * rates.byte_written,
            size * len(windows),
        )

    def _stitching(self, rates: Rates, number: int) -> Step:
        plan = self.plan
        chunks = plan.chunks()
        some = chunks[:: max(1, len(chunks) // 50)]
        touched = sum(len(plan.touching(*chunk)) for chunk in some) / len(some)
        voxels = math.prod(plan.chunk_shape)
        block = 4 * plan.shape[0] * math.prod(plan.kept_shape)
        covered = sum(math.prod(w.kept_shape) for w in plan.windows) / math.prod(plan.shape[1:])
        compared = max(0.0, covered - 1.0) * voxels * rates.voxel_compared
        read = touched * block
        seconds = _OPENED * rates.open + touched * rates.chunk_read + read * rates.byte_read
        seconds += compared + _STITCHED * rates.chunk_written + 5 * voxels * rates.byte_written
        need = int(4 * voxels * (3 + max(1.0, covered)) + 2 * block + 16 * voxels)
        return Step(f"stitching, pass {number}", len(chunks), need, seconds, int(read) * len(chunks))

    def _r_factor(self, rates: Rates) -> Step:
        shape = self.plan.shape
        strips = cut_strips(self.images.field, shape)
        tilts = max(s.tilts[1] - s.tilts[0] for s in strips)
        rows = max(s.rows[1] - s.rows[0] for s in strips)
        pixels = tilts * rows * self.images.field.detector_shape[1]
        seen = shape[0] * min(shape[1], rows + 32) * shape[2]
        chunk = self.plan.chunk_shape[1]
        read = 4 * seen * min(shape[1], rows + 32 + chunk) / min(shape[1], rows + 32)
        chunks = math.prod(math.ceil(n / c) for n, c in zip(shape[1:], self.plan.chunk_shape[1:], strict=True))
        seconds = _OPENED * rates.open + read * rates.byte_read + seen * tilts * rates.forward
        seconds += (chunks + 2 * tilts) * rates.chunk_read + _PIXEL_BYTES * pixels * rates.byte_read
        need = int(4 * 3.5 * pixels + 8 * min(PIECE_VOXELS, seen))
        return Step("R-factor", len(strips), need, seconds, int(read) * len(strips) + _PIXEL_BYTES * self.images.pixels)


# -- in one piece, or in slabs ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OnePiece:
    """A reconstruction of the whole field, with slabs or without."""

    images: Images
    keywords: Mapping[str, Any]
    first: tuple[int, int, int]
    shape: tuple[int, int, int]
    slabs: tuple[Slab, ...]
    probes: tuple[Probe, ...]

    @classmethod
    def of(cls, keywords: Mapping[str, Any], images: Images, workers: Workers) -> OnePiece:
        """Plan it."""
        field = images.field
        first, shape = volume_grid(field, keywords["shape"], keywords["thickness"])
        slabs = keywords["slabs"]
        cut = () if slabs is None else _slabs(images, first, shape, slabs, workers)
        probe = Probe("whole", keywords["solver"], field.matrices, shape, field.detector_shape)
        return cls(images, keywords, first, shape, cut, (probe,))

    @property
    def volume(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Shape and stored chunk (z, y, x)."""
        return self.shape, slab_chunks(self.shape, self.slabs[0].height if self.slabs else self.shape[1])

    def forecast(self, rates: Rates, workers: Workers) -> Forecast:
        """One task, or every iteration of every slab."""
        voxels, iterations = math.prod(self.shape), self.keywords["iterations"]
        reading, size = self.images.reading(self.images.field.detector_shape, rates)
        solved = iterations * rates.iteration["whole"]
        stored = 4 * voxels
        if not self.slabs:
            starts = self.keywords["start"] is not None
            need = solver_bytes(self.keywords["solver"], self.shape, self.images.pixels, starts=starts)
            seconds = rates.prepare["whole"] + reading + solved + 4 * voxels * rates.byte_written
            return Forecast(
                "reconstruct",
                (Step("one piece", 1, need, seconds, size),),
                stored,
                "one thread of one worker",
                loading=rates.loading,
            )
        geometry = self.images.field.geometry(self.first, self.shape)
        n = len(self.slabs)
        each = bytes_per_worker(geometry, self.slabs, min(n, workers.count), workers.threads) // workers.threads
        spent = (reading + solved + 4 * voxels * rates.byte_written) / (n * iterations)
        step = Step(f"iterations of {n} slabs", n * iterations, each, spent, size)
        return Forecast("reconstruct", (step,), stored, loading=rates.loading)


def _slabs(
    images: Images, first: tuple[int, int, int], shape: tuple[int, int, int], slabs: int | str, workers: Workers
) -> tuple[Slab, ...]:
    geometry = images.field.geometry(first, shape)
    available = int(SHARE * workers.memory)
    return plan_slabs(geometry, workers.count, available, slabs=slabs, threads=workers.threads)


# -- atoms -----------------------------------------------------------------------------------------------


def _trace(
    keywords: Mapping[str, Any],
    volume: tuple[tuple[int, int, int], tuple[int, int, int]],
    images: Images | None,
    rates: Rates,
) -> Forecast:
    """Blocks of the volume with the halo that their peaks depend on."""
    shape, chunk = volume
    voxel = images.field.pixel_size if images else 0.35
    halo = Search(float(keywords["sigma"]), keywords["fit_box"] / voxel, 0.0).halo
    chunks = [tuple(min(c, n - i) for i in range(0, n, c)) for n, c in zip(shape, chunk, strict=True)]
    edges = [block_edges(n, c, SMALLEST_BLOCK, LARGEST_BLOCK) for n, c in zip(shape, chunks, strict=True)]
    padded = [
        math.prod(r.stop - r.start + sum(p) for r, p in zip(*with_halo(core, shape, halo), strict=True))
        for core in block_cores(edges)
    ]
    mean = sum(padded) / len(padded)
    seconds = mean * rates.voxel_traced + 4 * mean * rates.byte_read
    largest = 4 * math.prod(max(c) for c in chunks)
    n_chunks = math.prod(len(c) for c in chunks)
    steps = [  # the density and the matter, each from every chunk, then the peaks
        Step(name, n_chunks, 2 * largest, rates.chunk_read + largest * rates.byte_read, largest * n_chunks)
        for name in ("density", "matter")
    ]
    steps.append(Step("peaks", len(padded), 4 * _TRACED * max(padded), seconds, int(4 * mean) * len(padded)))
    return Forecast("trace", tuple(steps), loading=rates.loading)
