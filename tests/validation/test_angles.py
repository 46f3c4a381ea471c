"""What refinement has to reach: a made-up particle, and RESIRE's test object. See `angles.py` for the long ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def angles() -> Any:
    """The command beside this file."""
    spec = importlib.util.spec_from_file_location("angles_validation", Path(__file__).with_name("angles.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_particle__angles_and_shifts_are_those_of_the_truth(angles: Any) -> None:
    """The paper's figure is 0.2 degree; smooth and random errors of up to a degree, shifts of two pixels, noise."""
    found = angles.judge(angles.small_case())
    assert found["before"]["largest_rotation"] > 0.8 and found["before"]["shift_rms"] > 1
    after = found["after"]
    assert after["largest_rotation"] <= 0.2 and after["rotation_rms"] <= 0.08
    assert after["shift_rms"] <= 0.1
    assert min(found["r_factor"]) <= 1.05 * found["r_factor_true"]


@pytest.mark.validation
def test_resire_sample__errors_of_half_a_degree_and_a_pixel_are_found(angles: Any, data_folder: Path) -> None:
    found = angles.judge(angles.sample_case())
    assert found["before"]["rotation_rms"] > 0.4 and found["before"]["shift_rms"] > 0.9
    assert found["after"]["rotation_rms"] <= 0.1 and found["after"]["shift_rms"] <= 0.1
