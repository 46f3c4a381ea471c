"""Solute centres and medium-range order of the published particle (tests/validation/mro.py prints every line)."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray as xr

from aetdist.analysis.mro import find_mro, mro_sizes, solute_centers
from aetdist.analysis.mro.clusters import Neighbours
from aetdist.analysis.mro.published import search_published, select_published
from aetdist.analysis.voronoi import voronoi_indices

pytestmark = pytest.mark.validation

RANGE = (3.858, 6.079)
NAMES = ("", "sc", "bcc", "fcc", "hcp")


@pytest.fixture(scope="module")
def particle(data_folder):
    with h5py.File(data_folder / "metallic_glass_nanoparticle.h5") as file:
        size = file["mro/network_size"][:].astype(int)
        sets = np.split(file["mro/atom_index_0based"][:].astype(int), np.cumsum(size)[:-1])
        kinds = [NAMES[k] for k in file["mro/network_type"][:]]
        networks = list(zip(kinds, sets, strict=True))
        position, types = file["positions_angstrom"][:].astype(np.float64), file["types"][:].astype(np.int64)
        return position, types, file["boo/scaled_order"][:], networks


def test_solute_centers__published_number(particle):
    position, types, order, _ = particle
    centres = solute_centers(position, types, order=order)
    assert int(centres["solute_center"].sum()) == 2682
    assert round(100 * centres.attrs["fraction"], 2) == 85.47


def test_mro_sizes__published_lengths_and_volumes(particle):
    position, _, _, networks = particle
    networks = [(k, a) for k, a in networks if len(a) >= 5]
    label = np.full(len(position), np.nan)
    for i, (_, atoms) in enumerate(networks):
        label[atoms] = i
    kinds = np.array([k for k, _ in networks])
    mro = xr.Dataset({"mro_label": ("atom", label), "mro_type": ("mro", kinds)})
    cells = voronoi_indices(position)
    pairs = np.stack([cells["face_atom"].values, cells["face_neighbour"].values], axis=1)
    sizes = mro_sizes(mro, position, pairs, cells["volume"].values)
    # The paper has the lengths of bcc and sc the other way round.
    for kind, length, volume in (("fcc", 2.27, 1.80), ("hcp", 2.40, 1.96), ("bcc", 2.11, 1.63), ("sc", 2.07, 1.96)):
        assert abs(0.1 * float(sizes["length"][kinds == kind].mean()) - length) <= 0.03, kind
        assert abs(1e-3 * float(sizes["volume"][kinds == kind].mean()) - volume) <= 0.1, kind


def test_find_mro__turned_mirrored_and_renumbered_particle(particle):
    position, types, order, _ = particle
    random = np.random.default_rng(0)
    before = find_mro(position, types, order=order)
    assert float(before["deviation"].max()) <= 0.75
    label = before["mro_label"].values
    expected = {tuple(np.flatnonzero(label == i)) for i in range(before.sizes["mro"])}
    for sign in (-1, *[1] * 20):
        q = np.linalg.qr(random.normal(size=(3, 3)))[0]
        q *= sign * np.sign(np.linalg.det(q))
        renumbered = random.permutation(len(types))
        after = find_mro((position @ q.T)[renumbered], types[renumbered], order=order[renumbered])
        label = after["mro_label"].values
        found = {tuple(sorted(renumbered[label == i].tolist())) for i in range(after.sizes["mro"])}
        assert found == expected
        assert sorted(after["mro_type"].values) == sorted(before["mro_type"].values)


def test_select_published__every_network_in_its_order(particle):
    position, types, order, networks = particle
    chosen = np.flatnonzero((types == 3) & (order < 0.5))
    points = position[chosen]
    found = search_published(points, Neighbours.within(points, RANGE), NAMES[1:], RANGE, 0.75)
    clusters = select_published(points, found, "yang2021")
    assert [(c.lattice, set(chosen[c.members].tolist())) for c in clusters] == [
        (k, set(a.tolist())) for k, a in networks
    ]
    corrected = [c.lattice for c in select_published(points, found, "yang2021-corrected") if len(c) >= 5]
    assert [corrected.count(kind) for kind in ("fcc", "hcp", "bcc", "sc")] == [86, 91, 24, 17]
