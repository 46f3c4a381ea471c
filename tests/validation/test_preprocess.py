"""Smaller acquisitions than the command's, against the same truth; every limit is the one asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.validation, pytest.mark.slow]

SPEC = importlib.util.spec_from_file_location("preprocess", Path(__file__).with_name("preprocess.py"))
preprocess = importlib.util.module_from_spec(SPEC)  # type: ignore[arg-type]
SPEC.loader.exec_module(preprocess)  # type: ignore[union-attr]


@pytest.fixture(scope="module", params=["particle", "film"])
def judged(request: pytest.FixtureRequest) -> tuple[str, dict[str, float], dict[str, tuple[float, float]]]:
    """Errors and agreement of a series of 15 or 17 tilts."""
    case = {"particle": preprocess.particle_case, "film": preprocess.film_case}[request.param]
    return (request.param, *preprocess.judge(case(tilts={"particle": 15, "film": 17}[request.param], seed=11)))


def test_preprocess__every_error_is_within_its_limit(judged: Any) -> None:
    name, figures, _ = judged
    column = ("particle", "film").index(name)
    assert figures.keys() == preprocess.LIMITS.keys()
    over = {key: value for key, value in figures.items() if not value <= preprocess.LIMITS[key][column]}
    assert not over


def test_preprocess__images_come_nearer_to_the_clean_ones_with_every_step(judged: Any) -> None:
    _, _, steps = judged
    correlation, difference = np.array(list(steps.values())).T
    *in_place, before, aligned = correlation
    rises = np.diff(in_place)
    assert (rises > 0).all(), steps
    assert aligned > before, steps
    assert (np.diff(difference[:-2]) < 0).all() and difference[-1] < difference[-2], steps


def test_preprocess__the_measured_film_is_known_as_aligned(data_folder: Path) -> None:
    """A series that its authors aligned is left as it is."""
    assert preprocess.measured_series(data_folder)[1].attrs["already_aligned"]
