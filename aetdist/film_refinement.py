"""Scan a film, refine angles, shifts and local shifts against the reprojections, scan again, until nothing improves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .align import shift_images
from .angles import refine_angles
from .angles.local import check_tiles, local_shifts
from .angles.model import model_of
from .angles.tilt_series import check_refinement, known_tilts, rotation_between, tilt_groups, turned_by
from .blocks.windows import run_tasks
from .errors import AetdistWarning, InputError
from .geometry import euler_from_matrices, matrices_from_euler
from .images import resample
from .images.displacement import TERMS, as_map, composed, inverted, powers
from .io import Record, Store
from .metrics import r_factor
from .reconstruct import reconstruct_scan
from .reconstruct.grid import Field
from .schema import SERIES_CHUNKS, TILT_SERIES, with_units

log = logging.getLogger(__name__)

TILTS, REFINED, VOLUME = "tilt_series/aligned", "tilt_series/refined", "volume"  # groups of the store
_ROUND = "refinement/round_{}"
_STEP = 1.7
"""Of what is found, how much a round takes: a volume explains part of what is off. Weighed on a simulated film of 17
tilts (0.6 pixel and 0.3 degree off): with 1 half as many rounds again are needed, with 2 the last ones swing."""
_BENT = "local shift too large"
_KEPT = ("", "moved too far", "did not converge", _BENT)  # flags of tilts that the film is made of


def refine_scan(
    store: Store,
    *,
    window: tuple[int, int],
    overlap: int,
    thickness: float,
    rounds: int = 12,
    iterations: int = 40,
    passes: int = 2,
    coarse_iterations: int = 30,
    solver: str = "fista",
    local: bool = False,
    tile: int = 96,
    tolerance: float = 0.001,
    maximum_angle: float = 3.0,
    maximum_shift: float = 10.0,
    maximum_local_shift: float = 3.0,
    exclude: Sequence[int] = (),
    remake: Callable[..., xr.Dataset] | None = None,
    on_round: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Computes: angles, shifts and local shifts of a film's tilt series together with its volume, round by round.

    Parameters
    ----------
    store : Store
        Open for writing, with the group ``tilt_series/aligned``. The series with all corrections is written as
        ``tilt_series/refined``, the film made from it as ``volume``.
    window, overlap, thickness, iterations, passes, coarse_iterations, solver
        Of every scan; see :func:`~aetdist.reconstruct.reconstruct_scan`.
    rounds : int
        At most so many.
    local : bool
        Let shifts vary over the field (:func:`~aetdist.angles.local.local_shifts`), smoothly, as where a film bends or
        the scan drifts. On simulated films that bend so R falls by a third more; on a measured one, aligned by its
        authors, it did not fall.
    tile : int
        Pixels of the tiles that local shifts are judged by.
    tolerance : float
        The rounds end when the mean R falls by less than this fraction of itself.
    maximum_angle, maximum_shift : float
        Degrees and pixels from the start; a tilt that would move further keeps its angles and shift.
    maximum_local_shift : float
        Pixels that a tilt's shift may vary by within the field; where more is found, it does not vary. The volume
        follows the outermost tilts of a series more than it resists them.
    exclude : sequence of int
        Tilts to leave out, by their numbers in the coordinate ``tilt``.
    remake : callable, optional
        ``remake(shift, local=...)`` makes the images again from what alignment started from, with the whole shift
        (tilt, [y, x]) and the local shift (tilt, axis, term) in pixels (:func:`~aetdist.align.shift_images` of the
        preprocessed images, :func:`~aetdist.preprocess.correct_frames` of the raw frames). The default moves
        the aligned images.
    on_round : callable, optional
        Called with the number of the round and the mean R.

    Returns
    -------
    dict
        ``r_factor_before`` and ``r_factor_after`` (mean over tilts), ``best_round``, ``rounds``, ``stopped`` (why they
        ended), ``converged``, ``kept_start``; and what the last scan says.

    Raises
    ------
    InputError
        If an option is off, or fewer than three tilts can be used.
    CapacityError
        If a local volume does not fit in memory.

    Warns
    -----
    AetdistWarning
        Naming the tilts that are left out or keep their values; and if R did not fall, in which case everything is as
        it was at the start.

    Notes
    -----
    A round: the film is scanned from the series as it is; angles and shifts of every tilt are refined against the
    reprojections of the whole film, read slab by slab; then what of the shift varies over the field; and the
    images are made again from the first ones, with all corrections, in one resampling. Every window thus reads its
    pixels where its own local shift has them. R is that of the images as they came: the reprojections
    are moved to them, as resampled images would have less noise. The best round is kept, its
    film scanned again where it was not the last.

    What a round found is kept in ``refinement/round_<n>``: a run that was killed goes on from there.

    ``tilt_series/refined`` has ``shift`` (tilt, axis), alignment's and the refinement's together, ``refined_shift``,
    ``local_shift`` and ``local_shift_uncertainty`` (tilt, axis, term) in pixels, ``angle_uncertainty``,
    ``shift_uncertainty``, ``rotation`` (tilt, lab_axis) in degrees, ``used``, ``flags``, ``round_r_factor``
    (round, tilt).

    References
    ----------
    Y. Yang et al., Nature 592, 60-64 (2021), Methods "CuTa thin film" iii-iv.
    """
    if not (int(rounds) == rounds and rounds >= 1 and tolerance >= 0):
        raise InputError(
            f"rounds came as {rounds} and tolerance as {tolerance}; needed are a whole number of 1 or more, and a "
            "number of 0 or more."
        )
    check_refinement(0.0, 1.0, rounds, maximum_angle, maximum_shift)
    if local:
        check_tiles(tile, 2)
    if not maximum_local_shift > 0:
        raise InputError(f"maximum_local_shift came as {maximum_local_shift}; needed is a number of pixels above 0.")
    scan = {
        "window": window, "overlap": overlap, "thickness": thickness, "iterations": iterations, "passes": passes,
        "coarse_iterations": coarse_iterations, "solver": solver,
    }  # fmt: skip
    series = store.read(TILTS)
    limits = {
        "maximum_angle": maximum_angle,
        "maximum_shift": maximum_shift,
        "maximum_local_shift": maximum_local_shift,
    }
    settings = {**scan, **limits, "local": local, "tile": tile, "exclude": sorted(known_tilts(series, exclude))}
    work = _Rounds(store, series, remake, scan, limits, tile if local else None, settings)
    states, r_factors = [work.start(exclude)], []
    stopped, number = f"after {rounds} rounds", 0
    while True:
        r_factors.append(work.judged(number, states[-1]))
        used = states[-1].used
        means = [float(np.nanmean(r[used])) for r in r_factors]
        log.info("round %d: R %.4f", number, means[-1])
        if on_round is not None:
            on_round(number, means[-1])
        if number and not means[-1] < (1.0 - tolerance) * means[-2]:
            stopped = "R falls no more"
            break
        if number == rounds:
            break
        number += 1
        states.append(work.improved(number, states[-1]))
    best = int(np.argmin(means))
    said = {
        "r_factor_before": means[0],
        "r_factor_after": means[best],
        "best_round": best,
        "rounds": number,
        "stopped": stopped,
        "converged": bool(stopped == "R falls no more" and best > 0),
        "kept_start": best == 0,
    }
    bad = np.flatnonzero(~states[best].used & (states[best].flags != "left out"))
    bad = np.union1d(bad, np.flatnonzero(np.isin(states[best].flags, ("moved too far", _BENT))))
    if bad.size:
        named = ", ".join(f"{int(series['tilt'].values[t])} ({states[best].flags[t]})" for t in bad)
        warnings.warn(f"Tilt {named}: left out, or kept where it was.", AetdistWarning, stacklevel=2)
    work.keep(best, states[best], np.stack(r_factors), said)
    if best == 0:
        warnings.warn(
            f"R did not fall ({means[0]:.4f} before, {means[-1]:.4f} after the last round): angles and shifts are left "
            "as they were.",
            AetdistWarning,
            stacklevel=2,
        )
    return {**work.scanned(best, states[best]), **said}


class _State(NamedTuple):
    """Corrections of every tilt so far; see :func:`refine_scan` for names and units."""

    angles: np.ndarray
    shift: np.ndarray
    local_shift: np.ndarray
    angle_uncertainty: np.ndarray
    shift_uncertainty: np.ndarray
    local_shift_uncertainty: np.ndarray
    flags: np.ndarray

    @property
    def used(self) -> np.ndarray:
        """Tilts of which the film is made."""
        return np.isin(self.flags, _KEPT)

    def dataset(self) -> xr.Dataset:
        """With names, units and coordinates."""
        dims = (("tilt", "euler"), ("tilt", "axis"), ("tilt", "axis", "term"))
        units = ("degree", "pixel", "pixel")
        variables = [(d, values, {"units": u}) for d, u, values in zip(2 * dims, 2 * units, self, strict=False)]
        named: dict[str, Any] = dict(zip(self._fields, [*variables, (("tilt",), self.flags)], strict=True))
        return xr.Dataset(named, {"axis": ["y", "x"], "term": list(TERMS)})

    @classmethod
    def of(cls, dataset: xr.Dataset) -> _State:
        """What `dataset` gave."""
        return cls._make(dataset[name].values for name in cls._fields)


@dataclass(eq=False)
class _Rounds:
    """The store, and how rounds are made in it."""

    store: Store
    series: xr.Dataset
    remake: Callable[..., xr.Dataset] | None
    scan: dict[str, Any]
    limits: dict[str, float]
    tile: int | None
    settings: dict[str, Any]
    summary: tuple[int, dict[str, Any]] | None = None  # of the last scan

    def start(self, exclude: Sequence[int]) -> _State:
        """The series as it came."""
        n = self.series.sizes["tilt"]
        flags = np.where(np.isin(self.series["tilt"].values, exclude), "left out", "").astype("U32")
        angles = np.array(self.series["angles"].values, dtype=np.float64)
        shift, local = np.zeros((n, 2)), np.zeros((n, 2, len(TERMS)))
        return _State(angles, shift, local, angles * np.nan, shift * np.nan, local * np.nan, flags)

    def images(self, state: _State) -> xr.Dataset:
        """The series with its corrections, lazily."""
        whole = state.shift + (self.series["shift"].values if self.remake and "shift" in self.series else 0.0)
        made = (self.remake or self._moved)(whole, local=state.local_shift)
        made = made.assign(
            mask=made["mask"] & xr.DataArray(state.used, dims="tilt"),
            angles=(("tilt", "euler"), state.angles),
            matrices=(("tilt", "row", "column"), matrices_from_euler(state.angles)),
        )
        return with_units(made, TILT_SERIES)

    def _moved(self, shift: np.ndarray, local: np.ndarray) -> xr.Dataset:
        return shift_images(self.series, shift, local=local)

    def scanned(self, number: int, state: _State) -> dict[str, Any]:
        """The film of a state, as ``volume``; what its scan says."""
        if self.summary is None or self.summary[0] != number:
            record, group = self._record(number), REFINED
            if number == 0 and state.used.all():
                group = TILTS  # as it came: a scan that is there goes on
            elif not self.store.holds(REFINED, record):
                self.store.write(REFINED, self.images(state), record=record, chunks=SERIES_CHUNKS)
            self.summary = number, reconstruct_scan(self.store, **self.scan, series=group)
        return self.summary[1]

    def judged(self, number: int, state: _State) -> np.ndarray:
        """R of every tilt, NaN for those that are not used; kept with the round."""
        group = _ROUND.format(number)
        if not self.store.holds(group, self._record(number)):
            self.store.write(group, state.dataset(), record=self._record(number))
        known = self.store.notes(group).get("r_factor")
        if known is None:
            self.scanned(number, state)
            density = self.store.read(VOLUME)["density"]
            tilts = np.flatnonzero(state.used)
            items = [
                (self.series[["images", "mask"]].isel(tilt=g), state.angles[g], state.shift[g], state.local_shift[g])
                for g in tilt_groups(tilts, True)
            ]
            parts = run_tasks(_judge, items, density, Field.of(self.series), label="R-factor")
            found = np.full(len(state.used), np.nan)
            found[tilts] = np.concatenate(parts)
            known = found.tolist()
            self.store.note(group, r_factor=[None if np.isnan(r) else r for r in known])
        return np.array([np.nan if r is None else r for r in known])

    def improved(self, number: int, state: _State) -> _State:
        """The state after a round that starts from `state`, whose film is scanned."""
        group = _ROUND.format(number)
        if self.store.holds(group, self._record(number)):
            return _State.of(self.store.read(group))
        self.scanned(number - 1, state)
        density, shape = self.store.read(VOLUME)["density"], (self.series.sizes["y"], self.series.sizes["x"])
        left_out = self.series["tilt"].values[~state.used]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AetdistWarning)  # of the flags of a round: those of the best one count
            found = refine_angles(
                self.images(state),
                density,
                search=0.0,
                maximum_angle=self.limits["maximum_angle"],
                maximum_shift=self.limits["maximum_shift"],
                exclude=[int(t) for t in left_out],
            )
        flags = np.where(state.used, found["flags"].values.astype("U32"), state.flags)
        still = np.zeros_like(state.local_shift)
        shift, local = composed((state.shift, state.local_shift), (found["shift"].values, still), shape)
        new = state._replace(
            angles=found["angles"].values,
            shift=shift,
            local_shift=local,
            angle_uncertainty=found["angle_uncertainty"].values,
            shift_uncertainty=found["shift_uncertainty"].values,
            flags=flags,
        )
        if self.tile is not None:
            seen = local_shifts(self.images(new), density, tile=self.tile, before=new.local_shift)
            more = seen["shift"].values, seen["local_shift"].values
            shift, local = composed((new.shift, new.local_shift), more, shape)
            sure = seen["local_shift_uncertainty"].values  # NaN where nothing more was found
            sure = np.where(np.isfinite(sure), sure, state.local_shift_uncertainty)
            new = new._replace(shift=shift, local_shift=local, local_shift_uncertainty=sure)
        return self._within_limits(_taken_further(state, new))

    def _within_limits(self, state: _State) -> _State:
        """Tilts that moved too far from the start are put back there; those that are bent too far, straightened."""
        start = self.series["angles"].values
        turned = rotation_between(matrices_from_euler(start), matrices_from_euler(state.angles))
        far = (np.linalg.norm(turned, axis=1) > self.limits["maximum_angle"]) | (
            np.abs(state.shift).max(axis=1) > self.limits["maximum_shift"]
        )
        far &= state.used
        new = state._replace(
            **{name: np.array(getattr(state, name)) for name in ("angles", "shift", "local_shift", "flags")}
        )
        new.angles[far], new.shift[far], new.local_shift[far] = start[far], 0.0, 0.0
        new.flags[far] = "moved too far"
        shape = self.series.sizes["y"], self.series.sizes["x"]
        places = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 9) for n in shape), indexing="ij"))
        varies = np.abs(np.einsum("tac,yxc->tayx", new.local_shift, powers(places[0], places[1], shape)))
        bent = state.used & (varies.max(axis=(1, 2, 3)) > self.limits["maximum_local_shift"])
        new.local_shift[bent], new.flags[bent] = 0.0, _BENT
        return new

    def keep(self, number: int, state: _State, r_factors: np.ndarray, said: dict[str, Any]) -> None:
        """Write the refined series with the record of all rounds."""
        start = matrices_from_euler(self.series["angles"].values)
        before = self.series["shift"].values if "shift" in self.series else 0.0
        found = state.dataset().drop_vars("angles")
        turned = rotation_between(start, matrices_from_euler(state.angles))
        result = self.images(state).assign(
            {str(name): variable for name, variable in found.data_vars.items()}
            | {
                "shift": (("tilt", "axis"), state.shift + before, {"units": "pixel"}),
                "refined_shift": (("tilt", "axis"), state.shift, {"units": "pixel"}),
                "rotation": (("tilt", "lab_axis"), turned, {"units": "degree"}),
                "used": ("tilt", state.used, {"units": "1", "long_name": "False where a tilt is left out"}),
                "round_r_factor": (("round", "tilt"), r_factors, {"units": "1"}),
            }
        )
        result = result.assign_coords({str(name): variable for name, variable in found.coords.items()})
        result.attrs = {**self.series.attrs, **said}
        self.store.write(REFINED, result, record=self._record(number), chunks=SERIES_CHUNKS)

    def _record(self, number: int) -> Record:
        return Record("refine-scan", {**self.settings, "round": number}, {TILTS: self.store.digest(TILTS)})


def _taken_further(state: _State, new: _State) -> _State:
    """What lies beyond a new state, ``_STEP`` times as far from the one before."""
    before, after = matrices_from_euler(state.angles), matrices_from_euler(new.angles)
    return new._replace(
        angles=euler_from_matrices(turned_by(_STEP * rotation_between(before, after)) @ before),
        shift=state.shift + _STEP * (new.shift - state.shift),
        local_shift=state.local_shift + _STEP * (new.local_shift - state.local_shift),
    )


def _judge(item: tuple[xr.Dataset, np.ndarray, np.ndarray, np.ndarray], density: xr.DataArray, field: Field) -> Any:
    """R of some tilts: the film's reprojections, moved to where the images had their pixels when they came."""
    series, angles, shift, local = item
    series = series.compute(scheduler="synchronous")
    seen, _, _ = model_of(density, (0.0, 0.0, 0.0), field.detector_shape, field.detector_start).predict(
        matrices_from_euler(angles), np.zeros((len(angles), 2))
    )
    back, back_local = inverted(shift, local, field.detector_shape)
    result = []
    for t, image in enumerate(seen):
        matrix, place, bend = as_map(back[t], back_local[t], field.detector_shape)
        moved, inside = resample(image, matrix, place, bend=bend)
        one = slice(t, t + 1)
        mask = series["mask"].values[one] & inside
        result.append(r_factor(moved[None], series["images"].values[one], mask)[0])
    return np.array(result)
