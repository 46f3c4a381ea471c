"""ADF-STEM images of atoms by multislice: how the electrons really get through, with abTEM."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from ..errors import InputError
from ..geometry import matrices_from_euler
from .cells import BATCH_BYTES, Cell, plan_cell

PHONONS = 2
"""First number of the stream of random displacements."""


@dataclass(frozen=True)
class Multislice:
    """How a multislice simulation is made: microscope, cell, and what makes images less sharp.

    Parameters
    ----------
    voltage : float
        Acceleration voltage in kV.
    convergence : float
        Convergence semi-angle of the probe in mrad; the probe has no aberrations.
    detector : tuple of float
        Inner and outer angle of the annular detector in mrad.
    slice_thickness : float
        Angstrom along the beam.
    sampling : float, optional
        Largest edge of a pixel of the wave functions in Angstrom. The default just holds the detector's
        outer angle: wavelength / (3 outer angle), as a third of the spectrum is kept empty against aliasing.
    source_size : float
        Standard deviation in Angstrom of the Gaussian that every image is convolved with: the source's size and
        whatever else blurs.
    frozen_phonons : int
        Random displacements of all atoms that a tilt is averaged over; 0 leaves the atoms where they are.
    thermal : float
        Standard deviation in Angstrom of these displacements along each axis.
    prism : int
        0 propagates every probe. Otherwise PRISM with this interpolation: 1 is exact, f needs f^2 times fewer plane
        waves, for which the cell must be f times wider than the probe.

    Notes
    -----
    Electrons travel towards -z of the lab, so that what lies below the sample is passed last.

    References
    ----------
    J. Madsen, T. Susi, Open Res. Europe 1, 24 (2021); C. Ophus, Adv. Struct. Chem. Imaging 3, 13 (2017).
    """

    voltage: float = 200.0
    convergence: float = 25.0
    detector: tuple[float, float] = (38.0, 190.0)
    slice_thickness: float = 2.0
    sampling: float | None = None
    source_size: float = 0.4
    frozen_phonons: int = 0
    thermal: float = 0.08
    prism: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        positive = {name: getattr(self, name) for name in ("voltage", "convergence", "slice_thickness")}
        if self.sampling is not None:
            positive["sampling"] = self.sampling
        for name, value in positive.items():
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} came as {value!r}; needed is a number above 0.")
        for name in ("source_size", "thermal"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"{name} came as {getattr(self, name)!r}; needed are 0 or more Angstrom.")
        for name in ("frozen_phonons", "prism"):
            if getattr(self, name) != int(getattr(self, name)) or getattr(self, name) < 0:
                raise InputError(f"{name} came as {getattr(self, name)!r}; needed is a whole number, 0 or more.")
        inner, outer = self.detector
        if not 0 <= inner < outer:
            raise InputError(f"The detector came as {inner:g} to {outer:g} mrad; needed is 0 <= inner < outer.")
        if self.sampling is not None and self.sampling > self.finest():
            raise InputError(
                f"A sampling of {self.sampling:g} Angstrom holds angles up to "
                f"{1e3 * self.wavelength() / (3 * self.sampling):.0f} mrad, but the detector reaches {outer:g}; give "
                f"at most {self.finest():.4f}, or leave it out."
            )

    @classmethod
    def of(cls, series: xr.Dataset, **changes: Any) -> Multislice:
        """The settings with which a tilt series was measured, as far as its attributes say, and `changes` to them."""
        names = {"voltage": "voltage_kV", "convergence": "convergence_mrad", "detector": "detector_mrad"}
        known = {name: series.attrs[key] for name, key in names.items() if key in series.attrs}
        if "detector" in known:
            known["detector"] = tuple(known["detector"])
        return replace(cls(**known), **changes)

    def attributes(self) -> dict[str, Any]:
        """As attributes of a tilt series; those of the microscope as measured ones have them."""
        return {
            "voltage_kV": float(self.voltage),
            "convergence_mrad": float(self.convergence),
            "detector_mrad": [float(angle) for angle in self.detector],
            **{
                f"simulation_{name}": getattr(self, name)
                for name in ("slice_thickness", "source_size", "frozen_phonons", "thermal", "prism")
            },
        }

    def wavelength(self) -> float:
        """Of the electrons in Angstrom, h / sqrt(2 m e U (1 + e U / (2 m c^2)))."""
        volts = 1e3 * self.voltage
        return 12.2642590 / math.sqrt(volts * (1.0 + 0.978475598e-6 * volts))

    def finest(self) -> float:
        """Edge of a pixel in Angstrom that just holds the detector's outer angle."""
        return 1e3 * self.wavelength() / (3.0 * self.detector[1])


def multislice_image(
    atoms: np.ndarray,
    angles: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    tilt: int,
    *,
    settings: Multislice,
    entropy: int,
) -> np.ndarray:
    """Image of one tilt, in parts of the incident electrons; float64, shape (ny, nx).

    Parameters
    ----------
    atoms : ndarray, shape (atoms, 4), float64
        x, y, z in Angstrom in the sample's frame, and the atomic number.
    angles : ndarray, shape (3,), float64
        Euler angles in degrees.
    x, y : ndarray, shape (nx,) and (ny,), float64
        Lab coordinates of the pixels in Angstrom.
    tilt : int
        Number of the tilt, for its random displacements.
    settings : Multislice
        How it is made.
    entropy : int
        Seed.
    """
    lab = atoms[:, :3] @ matrices_from_euler(angles[None])[0].T
    cell = plan_cell(lab, x, y, settings)
    image = np.zeros((len(y), len(x)))
    if cell is None:
        return image
    scanned = np.zeros((len(cell.rows), len(cell.columns)))
    for number in range(max(1, settings.frozen_phonons)):
        moved = lab
        if settings.frozen_phonons:
            random = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(PHONONS, tilt, number)))
            moved = lab + random.normal(0.0, settings.thermal, lab.shape)
        scanned += scan_cell(cell, moved, atoms[:, 3], x, y, settings) / max(1, settings.frozen_phonons)
    more_y, more_x = (
        max(0, -cell.rows[0], cell.rows[-1] + 1 - len(y)),
        max(0, -cell.columns[0], cell.columns[-1] + 1 - len(x)),
    )
    wide = np.zeros((len(y) + 2 * more_y, len(x) + 2 * more_x))
    wide[
        cell.rows[0] + more_y : cell.rows[-1] + 1 + more_y, cell.columns[0] + more_x : cell.columns[-1] + 1 + more_x
    ] = scanned
    if settings.source_size > 0:
        steps = [float(axis[1] - axis[0]) if len(axis) > 1 else 1.0 for axis in (y, x)]
        wide = gaussian_filter(wide, [settings.source_size / step for step in steps], mode="constant")
    image[:] = wide[more_y : more_y + len(y), more_x : more_x + len(x)]
    return image


def scan_cell(
    cell: Cell, lab: np.ndarray, numbers: np.ndarray, x: np.ndarray, y: np.ndarray, settings: Multislice
) -> np.ndarray:
    """Parts of the electrons on the detector for every probe of a cell, float64, shape (rows, columns)."""
    abtem, ase = import_abtem()
    within = lab - cell.low
    keep = ((within >= 0) & (within < cell.size)).all(axis=1)
    within = within[keep]
    within[:, 2] = cell.size[2] - within[:, 2]  # abTEM's electrons travel towards +z
    potential = abtem.Potential(
        ase.Atoms(numbers[keep].astype(int), positions=within, cell=cell.size),
        gpts=cell.grid,
        slice_thickness=settings.slice_thickness,
    ).build(lazy=False)
    start, end = [], []
    for axis, pixels, scanned in ((0, x, cell.columns), (1, y, cell.rows)):
        step = float(pixels[1] - pixels[0]) if len(pixels) > 1 else 1.0
        start.append(float(pixels[0]) + scanned[0] * step - cell.low[axis])
        end.append(start[-1] + len(scanned) * step)
    scan = abtem.GridScan(start, end, gpts=(len(cell.columns), len(cell.rows)), endpoint=False)
    detector = abtem.AnnularDetector(*settings.detector)
    beam = {"energy": 1e3 * settings.voltage, "semiangle_cutoff": settings.convergence}
    if settings.prism:
        plane_waves = abtem.SMatrix(potential=potential, interpolation=settings.prism, **beam)
        measured = plane_waves.scan(scan=scan, detectors=detector, lazy=False)
    else:
        probe = abtem.Probe(**beam)
        probe.grid.match(potential)
        measured = probe.scan(potential, scan=scan, detectors=detector, max_batch=cell.batch(), lazy=False)
    return np.asarray(measured.array, dtype=np.float64).T


def import_abtem() -> tuple[Any, Any]:
    """The modules abtem and ase.

    Raises
    ------
    InputError
        If they are not installed.
    """
    try:
        import abtem
        import ase
    except ImportError:
        raise InputError("Multislice needs abTEM, which is not installed: pip install 'aetdist[multislice]'.") from None
    # Plans that are measured differ from run to run in the last digits, and are no faster here.
    abtem.config.set({"fftw.planning_effort": "FFTW_ESTIMATE"})
    return abtem, ase


def forecast_multislice(series: xr.Dataset) -> dict[str, Any]:
    """Computes: what a multislice simulation will take, from a few probes on the largest grid, timed here.

    Parameters
    ----------
    series : xarray.Dataset
        What `simulate_tilt_series` gave with multislice, not computed yet.

    Returns
    -------
    dict
        ``cpu_seconds`` of all tilts together, ``cpu_seconds_per_tilt`` on average, ``memory_bytes`` of one task
        (beside a process's own), ``grid`` (points of a wave function along x and y), ``n_slices`` and ``n_probes``
        of the largest tilt.
    """
    abtem, ase = import_abtem()
    nx, ny = series.attrs["simulation_multislice_grid"]
    thickness = 2.0
    potential = abtem.Potential(
        ase.Atoms([78], positions=[[1.0, 1.0, thickness]], cell=[0.05 * nx, 0.05 * ny, 2 * thickness]),
        gpts=(nx, ny),
        slice_thickness=thickness,
    ).build(lazy=False)
    probe = abtem.Probe(energy=2e5, semiangle_cutoff=25.0)
    probe.grid.match(potential)
    batch = max(1, min(8, BATCH_BYTES // (8 * nx * ny)))
    scan = abtem.GridScan((0.0, 0.0), (1.0, 1.0), gpts=(batch, 2), endpoint=False)
    detector = abtem.AnnularDetector(38.0, 80.0)
    timed = []
    for _ in range(2):
        start = time.process_time()
        probe.scan(potential, scan=scan, detectors=detector, max_batch=batch, lazy=False)
        timed.append(time.process_time() - start)
    per_step = min(timed) / (2 * batch * 2 * nx * ny)
    seconds = per_step * series.attrs["simulation_multislice_steps"]
    return {
        "cpu_seconds": seconds,
        "cpu_seconds_per_tilt": seconds / series.sizes["tilt"],
        "memory_bytes": series.attrs["simulation_multislice_memory_bytes"],
        "grid": [nx, ny],
        "n_slices": series.attrs["simulation_multislice_slices"],
        "n_probes": series.attrs["simulation_multislice_probes"],
    }
