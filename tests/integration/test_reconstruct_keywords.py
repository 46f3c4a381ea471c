"""What a reconstruction takes: arrays by the name of their group, and keywords that go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import aetdist as aet
from aetdist import pipeline
from aetdist.errors import InputError
from aetdist.experiment import checked_keywords
from aetdist.io import Record, Store, open_dataset

pytestmark = pytest.mark.integration


def test_reconstruct__support_by_the_name_of_its_group(tmp_path: Path) -> None:
    """The same as the array itself gives; a group without it is refused."""
    atoms = aet.nanoparticle(4.0, species=("Cu",), seed=1)
    tilts = aet.simulate_tilt_series(atoms, np.array([[0.0, t, 0.0] for t in range(-60, 61, 20)]), pixel_size=0.5)
    n = tilts.sizes["x"]
    support = np.zeros((n, tilts.sizes["y"], n), bool)
    support[n // 4 : -n // 4, n // 4 : -n // 4, n // 4 : -n // 4] = True
    path = tmp_path / "run.zarr"
    with Store.create(path) as store:
        store.write("tilt_series/aligned", tilts, record=Record("simulate"), chunks={"tilt": 1})
        store.write("inside", xr.Dataset({"support": (("z", "y", "x"), support)}), record=Record("drawn"))
    pipeline.reconstruct(path, iterations=3, support="inside")
    expected = aet.reconstruct_resire(tilts, iterations=3, support=support)["density"].values
    np.testing.assert_allclose(open_dataset(path, "volume")["density"].values, expected, atol=1e-6)
    assert not expected[~support].any() and expected.any()
    with pytest.raises(InputError, match="without density"):
        pipeline.reconstruct(path, iterations=3, start="inside")


def test_checked_keywords__what_contradicts_is_refused_before_anything_runs() -> None:
    """Slabs know no stop rule, one piece no checkpoints; a group of the store may name the support of either."""
    with pytest.raises(InputError, match="stop = 'held_out_blocks' came, which reconstruct_slabs does not take"):
        checked_keywords("reconstruct", {"slabs": "auto", "stop": "held_out_blocks"})
    with pytest.raises(InputError, match="checkpoint_every = 3 came, which reconstruct_resire does not take"):
        checked_keywords("reconstruct", {"checkpoint_every": 3})
    for slabs in (None, 2):
        assert checked_keywords("reconstruct", {"slabs": slabs, "support": "scan/film_1"})["support"] == "scan/film_1"
