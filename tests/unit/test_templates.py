"""Template matching against crystals and the bond order, where OVITO is installed; and what it says where not."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import aetdist as aet
from aetdist.errors import InputError

FCC = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def sample() -> tuple[np.ndarray, np.ndarray]:
    """Random atoms beside a warm crystal, and which atoms lie inside the latter."""
    rng = np.random.default_rng(0)
    cells = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    crystal = 4.0 * (cells + FCC).reshape(-1, 3) + rng.normal(0, 0.05, (864, 3))
    glass = 2.7 * np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    points = np.concatenate([crystal, glass + rng.uniform(-0.9, 0.9, glass.shape) + [26.0, 0, 0]])
    middle = (np.abs(points - 11.0) < 7.0).all(axis=1)
    return points, middle


def test_template_matching__finds_the_crystal() -> None:
    pytest.importorskip("ovito")
    points, middle = sample()
    found = aet.template_matching(points)
    assert (found["structure"][middle] == "fcc").all()
    np.testing.assert_allclose(found["interatomic_distance"][middle], 4.0 / 2**0.5, rtol=0.02)
    assert (found["structure"][864:] == "none").mean() > 0.9
    assert np.array_equal(np.isnan(found["rmsd"]), found["structure"] == "none")
    assert float(found["fraction"].sum()) == pytest.approx(1.0)
    # The bond order agrees on the whole: what is a crystal has more of it.
    order = aet.bond_order(points, 3.4)["order"]
    assert float(order[middle].min()) > float(order[864:].quantile(0.99))


def test_template_matching__knows_icosahedra() -> None:
    pytest.importorskip("ovito")
    golden = (1 + 5**0.5) / 2
    corners = np.array([(0.0, s, t * golden) for s in (1, -1) for t in (1, -1)])
    icosahedron = 1.35 * np.concatenate([[[0.0, 0, 0]], *(np.roll(corners, k, axis=1) for k in range(3))])
    found = aet.template_matching(np.concatenate([icosahedron, icosahedron + np.array([40.0, 0, 0])]))
    assert (found["structure"][[0, 13]] == "ico").all() and (found["structure"] == "ico").sum() == 2
    assert float(found["rmsd"][0]) < 0.05


def test_template_matching__says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ovito.data", None)
    with pytest.raises(InputError, match="pip install ovito"):
        aet.template_matching(sample()[0])
    with pytest.raises(InputError, match="largest_rmsd is 0"):
        aet.template_matching(sample()[0], largest_rmsd=0.0)
