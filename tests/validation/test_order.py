"""Every figure of the published particle that has a tolerance, within it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.validation


@pytest.fixture(scope="module")
def harness() -> Iterator[Any]:
    """The command's module."""
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    try:
        import order

        yield order
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def particle(harness: Any, data_folder: Path) -> Any:
    return harness.Particle(data_folder)


def _check(harness: Any, rows: Any) -> None:
    rows = list(rows)
    gated = [row for row in rows if not np.isnan(row.gate)]
    assert gated
    failed = [row for row in gated if not row.passes()]
    assert not failed, "\n" + harness.table(failed)


def test_pair_distribution__of_the_published_particle(harness: Any, particle: Any) -> None:
    _check(harness, harness.pair_rows(particle))


def test_bond_order__of_the_published_particle(harness: Any, particle: Any) -> None:
    import aetdist as aet

    _check(harness, harness.bond_rows(particle, aet.bond_order(particle.positions, harness.CUTOFF)))


def test_voronoi_and_chemical_order__of_the_published_particle(harness: Any, particle: Any) -> None:
    _check(harness, harness.voronoi_rows(particle))


def test_row__fails_when_it_is_off(harness: Any) -> None:
    assert harness.Row("a", 2.73, gate=0.03, yang2021=2.75).passes()
    assert not harness.Row("a", 2.73, gate=0.03, yang2021=2.75, correct=2.77).passes()
    assert not harness.Row("a", 2.73, gate=0.03).passes()
    assert harness.Row("a", correct=88.0, gate=0.0, asked=87.0, least=True).passes()
    assert not harness.Row("a", correct=86.0, gate=0.0, asked=87.0, least=True).passes()
