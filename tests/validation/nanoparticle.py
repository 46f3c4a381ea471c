"""The paper's nanoparticle through `aetdist validate`: prints its table, and what became of the true atoms.

    python tests/validation/nanoparticle.py FOLDER [CASE] [RADIUS]

Needs AETDIST_DATA. CASE is ``angles`` (the default: 5 % of 1.7e4 electrons per square Angstrom and tilt are counted,
the Euler angles are off by 0.2 degree and the shifts by 0.15 pixel, which `refine` has to find), or one of
tests/validation/atoms.py: ``five``, or ``imperfect``, where brightness, tails, saturation and widths are off too and
`refine-angles` comes first. With a RADIUS in Angstrom only a sphere is cut from the particle. The simulated images take
the place of the measured ones, which are not published. A second time everything that is there is kept.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "benchmarks")]

import atom_cases  # noqa: E402
import atoms  # noqa: E402
import numpy as np  # noqa: E402

from aetdist import pipeline  # noqa: E402
from aetdist.io import Record, Store, write_xyz  # noqa: E402
from aetdist.io.hierarchy import is_store  # noqa: E402
from aetdist.validation.calibration import honesty  # noqa: E402
from aetdist.validation.comparison import compared, match_atoms  # noqa: E402


def simulated(name: str, radius: float | None) -> atom_cases.Case:
    """A case by its name."""
    if name != "angles":
        return atoms.particle(name, radius)
    whole, angles = atom_cases.published_particle()
    only_geometry = atom_cases.Imperfections(gain=0.0, tails=0.0, saturation=0.0, width=0.0)
    return atom_cases.simulated(whole, angles, radius=radius, imperfect=only_geometry)


def make_run(path: Path, case: atom_cases.Case) -> None:
    """A store with the images of a case as its aligned tilt series."""
    record = Record("simulate", case.taken)
    with Store.open(path, "a") if is_store(path) else Store.create(path) as store:
        if not store.holds("tilt_series/aligned", record):
            store.write("tilt_series/aligned", case.series, record=record, chunks={"tilt": 1})


def main(words: list[str]) -> None:
    """Simulate, solve, validate; print."""
    folder = Path(words[0])
    name = words[1] if len(words) > 1 else "angles"
    radius = float(words[2]) if len(words) > 2 else None
    folder.mkdir(parents=True, exist_ok=True)
    run, begin = folder / "run.zarr", time.process_time()
    case = simulated(name, radius)
    make_run(run, case)
    write_xyz(folder / "glass.xyz", case.truth)
    if name == "imperfect":
        pipeline.refine_angles(run)
    pipeline.reconstruct(run, iterations=100)
    pipeline.trace(run)
    pipeline.classify(run, species=3)
    pipeline.refine(run)
    solved = time.process_time()
    said = pipeline.validate(run, truth=folder / "truth.xyz", found=folder / "found.xyz")
    print(said["text"])
    print(f"CPU seconds: {solved - begin:.0f} for the run, {time.process_time() - solved:.0f} for its validation\n")
    with Store.open(run) as store:
        matched = match_atoms(store.read("atoms_calibrated"), case.truth)
    result = compared(matched)
    parts = ", ".join(f"{key} {100 * result.attrs[key]:.2f} %" for key in ("identified", "missed", "false"))
    rms = " ".join(f"{100 * value:.1f}" for value in result["deviation_rms"].values)
    print(f"The run against the true atoms: {parts}; rms x, y, z, distance {rms} pm; within calibrated σ", end=" ")
    print(" ".join(f"{100 * value:.1f}" for value in np.asarray(honesty(matched))), "%")


if __name__ == "__main__":
    main(sys.argv[1:] or ["nanoparticle"])
