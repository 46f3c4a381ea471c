"""Atoms from simulated and measured tilt series against the truth; prints JSON.

    python tests/validation/atoms.py small
    python tests/validation/atoms.py five imperfect@20 seed=3 trace.sigma=0.7

Each case is simulated and solved in a process of its own, on one thread: the paper's nanoparticle at its 55
tilts (needs AETDIST_DATA), or with ``@20`` the sphere of a radius of 20 Angstrom cut from it, with as many counts
for each atom. Options are the defaults, but for 100 iterations of reconstruction; ``reconstruct.iterations=40`` and
the like change an option of a stage, for comparison.

    noise-free  no noise
    five, two   5 % or 2 % of 1.7e4 e/A^2 per tilt are counted in the middle of the particle
    half        5 %, every second tilt
    imperfect   5 %, and data that no model of round atoms explains; angles and shifts are refined first
    small       five@20
    sigma       what atoms say of themselves: errors of positions, probabilities; 5 %, 2 %, half and imperfect @20
    cost        five, then 20 iterations of refinement without curation
    linear      seconds and memory against the number of atoms
    film        the measured film of ta_film_fov_A against its published atoms
    synthetic-film  a film of known atoms with its geometry and noise
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "benchmarks")]
THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

import atom_cases  # noqa: E402
import atom_scores  # noqa: E402
import numpy as np  # noqa: E402
import xarray as xr  # noqa: E402
from engine.measure import Memory, Stopwatch, in_child, memory  # noqa: E402

import aetdist as aet  # noqa: E402
from aetdist.validation.solve import solve_series  # noqa: E402

CASES: dict[str, dict[str, Any]] = {
    "noise-free": {"efficiency": None},
    "five": {},
    "two": {"efficiency": 0.02},
    "half": {"every": 2},
    "imperfect": {"imperfect": atom_cases.Imperfections()},
}
#: At least so many found (%), at most so many false (%), at most this rms (pm): what is asked and what is aimed at.
ASKED = {
    "noise-free": {"classified": (99.0, 0.5, 16.0), "refined": (99.8, 0.05, 2.0)},
    "five": {"classified": (97.0, 1.5, 22.0), "refined": (99.5, 0.2, 10.0)},
    "two": {"refined": (98.5, 1.0, 17.0)},
    "half": {"refined": (96.0, 3.5, 23.0)},
    "imperfect": {"refined": (97.4, 2.5, 21.0)},
}
AIMED = {
    "noise-free": {"classified": (99.9, 0.05, 10.0), "refined": (100.0, 0.0, 0.2)},
    "five": {"classified": (99.3, 0.2, 15.0), "refined": (99.95, 0.02, 8.2)},
    "two": {"refined": (99.6, 0.2, 13.0)},
    "half": {"refined": (99.0, 0.5, 13.0)},
    "imperfect": {"refined": (99.5, 0.5, 12.0)},
}
OTHERS = ("sigma", "cost", "linear", "film", "synthetic-film")
Options = dict[str, dict[str, Any]]


@dataclass
class Solved:
    """What the stages give: the series that was solved, volume, atoms by stage, seconds by stage."""

    series: xr.Dataset
    volume: xr.Dataset
    atoms: dict[str, xr.Dataset] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)


def solve(series: xr.Dataset, *, angles: bool = False, options: Options | None = None, species: int = 3) -> Solved:
    """From projections to curated atoms, stage by stage, see :func:`aetdist.validation.solve.solve_series`."""
    seconds: dict[str, float] = {}

    def timed(stage: str, function: Any, *inputs: Any, **keywords: Any) -> Any:
        watch = Stopwatch()
        result = function(*inputs, **keywords)
        seconds[stage] = watch.read()["cpu_s"]
        return result

    found = solve_series(series, species=species, angles=angles, options=options, run=timed)
    return Solved(found.pop("series"), found.pop("volume"), found, seconds)


def particle(name: str, radius: float | None = None, seed: int = 0) -> atom_cases.Case:
    """A case by its name."""
    whole, angles = atom_cases.published_particle()
    return atom_cases.simulated(whole, angles, radius=radius, seed=seed, **CASES[name])


def warm(angles: bool, options: Options) -> None:
    """Compile what the stages use on a particle of a few dozen atoms, so that it is not timed."""
    case = particle("five", radius=8.0)
    solve(case.series, angles=angles, options=options)


def judge(name: str, radius: float | None = None, seed: int = 0, options: Options | None = None) -> dict[str, Any]:
    """All figures of a case of the particle."""
    options, angles = options or {}, name == "imperfect"
    warm(angles, options)
    begin = memory("VmHWM")
    case = particle(name, radius, seed)
    used = Memory()
    solved = solve(case.series, angles=angles, options=options)
    peak = used.read()["process_gb"]
    align = "rigid" if angles else None
    figures: dict[str, Any] = {"taken": case.taken}
    if angles:
        figures["taken"]["angles"] = geometry_errors(case, solved.series)
    least = atom_scores.cramer_rao(case)
    figures["bound_pm"] = None if least is None else atom_scores.rms_of(least)
    for stage, atoms in solved.atoms.items():
        figures[stage] = atom_scores.score(atoms, case.truth, align, least)
        for verdict, table in (("asked", ASKED), ("aimed", AIMED)):
            if stage in table[name]:
                figures[stage][verdict] = reached(figures[stage], table[name][stage])
    claims = solved.atoms["refined"]
    figures["honesty"] = atom_scores.honesty(atom_scores.deviations(claims, case.truth, align))
    figures["reliability"] = atom_scores.tables([atom_scores.verdicts(claims, case.truth, align)])
    figures["unresolved"] = int(claims["unresolved"].sum())
    figures["attributes"] = plain(claims.attrs)
    return figures | {
        "cpu_s": solved.cpu_s | {"all": sum(solved.cpu_s.values())},
        "peak_gb": peak,
        "peak_before_gb": begin,
    }


def reached(figures: dict[str, Any], limits: tuple[float, float, float]) -> dict[str, Any]:
    """Whether found, false and rms are as good as the limits."""
    found, false, rms = limits
    good = figures["found"] >= found and figures["false"] <= false and figures["rms"] <= rms
    return {"limits": limits, "reached": bool(good)}


def geometry_errors(case: atom_cases.Case, series: xr.Dataset) -> dict[str, Any]:
    """Rotations (degrees) and shifts (pixels), rms, before and after refinement, less what all tilts share."""
    from angles import errors

    truth = {
        "series": case.series,
        "true_angles": case.geometry["angles"],
        "true_shifts": case.geometry["shifts"],
    }
    before = errors(case.series["angles"].values, np.zeros_like(case.geometry["shifts"]), truth)
    after = errors(series["angles"].values, series["refined_shift"].values, truth)
    names = ("rotation_rms", "shift_rms")
    return {"before": {n: before[n] for n in names}, "after": {n: after[n] for n in names}}


def sigma(radius: float | None, seed: int = 0, options: Options | None = None) -> dict[str, Any]:
    """What atoms say of themselves, for several kinds of data apart and together."""
    options = options or {}
    z, answers, figures = [], [], {}
    for name in ("five", "two", "half", "imperfect"):
        case, angles = particle(name, radius or 20.0, seed), name == "imperfect"
        found = solve(case.series, angles=angles, options=options).atoms["refined"]
        align = "rigid" if angles else None
        z.append(atom_scores.deviations(found, case.truth, align))
        answers.append(atom_scores.verdicts(found, case.truth, align))
        figures[name] = {"honesty": atom_scores.honesty(z[-1]), "reliability": atom_scores.tables(answers[-1:])}
    together = {"honesty": atom_scores.honesty(np.concatenate(z)), "reliability": atom_scores.tables(answers)}
    return figures | {"together": together}


def cost(radius: float | None = None, seed: int = 0, options: Options | None = None) -> dict[str, Any]:
    """CPU seconds of the stages, and of 20 iterations of refinement alone."""
    options = options or {}
    warm(False, options)
    case = particle("five", radius, seed)
    solved = solve(case.series, options=options)
    watch = Stopwatch()
    found = aet.refine_atoms(case.series, solved.atoms["classified"], volume=solved.volume, iterations=20, curate=False)
    seconds = solved.cpu_s | {"refine_20_iterations": watch.read()["cpu_s"]}
    return {
        "cpu_s": seconds | {"all": sum(solved.cpu_s.values())},
        "peak_gb": memory("VmHWM"),
        "iterations": found.sizes.get("iteration"),
        "without_curation": atom_scores.score(found, case.truth),
    }


def plain(attrs: dict[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them."""
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in attrs.items()}


def parsed(words: list[str]) -> tuple[list[tuple[str, float | None]], int, Options]:
    """Cases with their radius, the seed, and options by stage, from the command line."""
    cases: list[tuple[str, float | None]] = []
    seed, options = 0, {}
    for word in words:
        key, given, value = word.partition("=")
        stage, dotted, option = key.partition(".")
        if given and key == "seed":
            seed = int(value)
        elif given and dotted:
            try:
                read = json.loads(value)
            except json.JSONDecodeError:
                read = value
            options.setdefault(stage, {})[option] = read
        elif word == "small":
            cases.append(("five", 20.0))
        else:
            name, _, radius = word.partition("@")
            cases.append((name, float(radius) if radius else None))
    known = [*CASES, "small", *OTHERS]
    for name, _ in cases:
        if name not in known:
            raise SystemExit(f"There is no case {name!r}; choose of {', '.join(known)}.")
    return cases, seed, options


def run(name: str, radius: float | None, seed: int, options: Options) -> dict[str, Any]:
    """The figures of one case."""
    if name in CASES:
        return judge(name, radius, seed, options)
    if name in ("film", "synthetic-film"):
        import atom_film

        return {"film": atom_film.film, "synthetic-film": atom_film.synthetic_film}[name](seed=seed, options=options)
    if name == "linear":
        import atom_sizes

        return atom_sizes.linear(seed)
    return {"sigma": sigma, "cost": cost}[name](radius, seed, options)


def main(words: list[str]) -> None:
    """Print the figures of each case as soon as they are there."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    cases, seed, options = parsed(words)
    for name, radius in cases:
        label = name if radius is None else f"{name}@{radius:g}"
        figures = in_child(run, name, radius, seed, options)
        print(json.dumps({label: figures}, indent=1, default=str), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or [*CASES, *OTHERS])
