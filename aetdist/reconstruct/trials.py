"""How many iterations the windows of a scan are given: trials in a few of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..blocks.windows import run_tasks
from ..io import Store
from .film import COARSE
from .local import solve_window
from .stopping import Stop
from .windows import ScanPlan, Window

_TRIALS = 3  # windows


def chosen_iterations(store: Store, plan: ScanPlan, stop: Stop, iterations: int, solver: str) -> dict[str, Any]:
    """The number of iterations that a rule chooses for the windows of a scan, and how.

    Three windows of a film that fills the field alike are solved by the rule; the median of what it chooses in
    them is given to all. What was chosen is kept with the coarse film and not computed again.

    Parameters
    ----------
    store : Store
        Open for writing, with the coarse film.
    plan : ScanPlan
    stop : Stop
    iterations : int
        At most so many.
    solver : str

    Returns
    -------
    dict
        ``stop``, ``iterations``, and of a rule that was asked ``trial_iterations``, what it chose in each
        window, with its numbers.
    """
    if stop.rule == "fixed":
        return {"stop": stop.rule, "iterations": iterations}
    asked = {
        "rule": [stop.rule, stop.fraction, stop.seed, stop.noise],
        "at_most": iterations,
        "solver": solver,
        "windows": [len(plan.windows), list(plan.windows[0].crop_shape)],
    }
    notes = store.notes(COARSE)
    if notes.get("asked") == asked:
        return dict(notes["chosen"])
    trials = trial_windows(plan)
    stopped = run_tasks(
        _trial, trials, str(store.path), replace(plan, windows=()), iterations, solver, stop, label="trial windows"
    )
    counts = [s["iterations"] for s in stopped]
    numbers = {"seed": stop.seed, "held_out": stop.fraction} if stop.holds_out else {}
    chosen = {"stop": stop.rule, "iterations": int(np.median(counts)), "trial_iterations": counts, **numbers}
    store.note(COARSE, asked=asked, chosen=chosen)
    return chosen


def trial_windows(plan: ScanPlan) -> list[Window]:
    """Windows a quarter, a half and three quarters along the scan."""
    n = len(plan.windows)
    return [plan.windows[i] for i in sorted({n * q // (_TRIALS + 1) for q in range(1, _TRIALS + 1)})]


def _trial(window: Window, path: str, plan: ScanPlan, iterations: int, solver: str, stop: Stop) -> dict[str, Any]:
    solution = solve_window(path, window, plan, COARSE, iterations, solver, stop)
    return {"iterations": iterations} if solution is None else solution.stopped
