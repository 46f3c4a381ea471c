"""What refinement refuses before it works, and what it says then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from aetdist import schema
from aetdist.errors import InputError
from aetdist.geometry import centred_coordinates
from aetdist.refine import refine_atoms
from aetdist.simulate import simulate_tilt_series

PIXEL = 0.4
QUICK: dict[str, Any] = {"iterations": 4, "curation_rounds": 2}


@pytest.fixture(scope="module")
def traced() -> xr.Dataset:
    """Atoms of a small cube."""
    position = np.stack(np.meshgrid(*[[-2.6, 0.1, 2.5]] * 3), axis=-1).reshape(-1, 3)
    atoms = xr.Dataset({"position": (("atom", "axis"), position), "type": ("atom", np.arange(27) % 2 + 1)})
    return schema.with_units(atoms.assign_coords(axis=list("xyz")), schema.ATOMS)


@pytest.fixture(scope="module")
def series(traced: xr.Dataset) -> xr.Dataset:
    return simulate_tilt_series(
        traced, np.linspace(-70, 70, 15), pixel_size=PIXEL, heights=[1.0, 2.0], field=(40, 40), dose=1e5, seed=1
    ).compute()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"heights": "types"}, "heights came as 'types'; needed is one of auto, type, atom"),
        ({"widths": 1}, "widths came as 1"),
        ({"solver": "adam"}, "solver came as 'adam'; needed is one of conjugate_gradients, published"),
        ({"weights": "poisson"}, "weights came as 'poisson'"),
        ({"iterations": 0}, "iterations came as 0; needed is a whole number of 1 or more"),
        ({"iterations": 2.5}, r"iterations came as 2\.5"),
        ({"iterations": "many"}, "iterations came as many"),
        ({"curation_rounds": -1}, "curation_rounds came as -1"),
        ({"seed": -1}, "seed came as -1; needed is a whole number of 0 or more"),
        ({"minimum_distance": 0.0}, r"minimum_distance came as 0\.0; needed is a length in Angstrom above 0"),
        ({"maximum_move": np.inf}, "maximum_move came as inf"),
        ({"maximum_move": np.nan}, "maximum_move came as nan"),
        ({"prior": 0}, "prior came as 0"),
        ({"prior": -0.1}, r"prior came as -0\.1"),
        ({"background": -1.0}, r"background came as -1\.0; needed is a length in Angstrom of 0 or more"),
        ({"background": np.nan}, "background came as nan"),
    ],
)
def test_refine__refuses_options(series: xr.Dataset, traced: xr.Dataset, options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        refine_atoms(series, traced, **options)


def test_refine__refuses_atoms(series: xr.Dataset, traced: xr.Dataset) -> None:
    def changed(**values: Any) -> xr.Dataset:
        atoms = traced.copy(deep=True)
        for name, value in values.items():
            atoms[name][3] = value
        return atoms

    for atoms, match in (
        (traced.isel(atom=[]), "no atoms to refine; trace them first"),
        (changed(position=np.nan), "not finite"),
        (changed(position=100.0), r"1 of \d+ atoms lie outside the field of every tilt, the first at \[100"),
        (changed(type=0), "types start at 1, but 0 came"),
        (traced.drop_vars("position"), "needs position"),
        (traced.assign(type=traced["type"] * 1.0), "needed is a kind of 'i'"),
    ):
        with pytest.raises(InputError, match=match):
            refine_atoms(series, atoms)


def test_refine__refuses_series_and_volumes(series: xr.Dataset, traced: xr.Dataset) -> None:
    def volume(size: float, n: int = 46) -> xr.Dataset:
        x = centred_coordinates(n, size)
        return xr.Dataset({"density": (("z", "y", "x"), np.zeros((n, n, n), np.float32))}, {"z": x, "y": x, "x": x})

    with pytest.raises(InputError, match="2 tilts can be used; needed are at least three"):
        refine_atoms(series.isel(tilt=[0, 5]), traced)
    with pytest.raises(InputError, match="2 tilts can be used"):
        refine_atoms(series.assign(used=("tilt", np.arange(15) < 2)), traced)
    with pytest.raises(InputError, match=r"Pixels of 0\.48 x 0\.4 Angstrom \(y, x\) came; needed are square ones"):
        refine_atoms(series.assign_coords(y=series["y"] * 1.2), traced)
    with pytest.raises(InputError, match=r"Voxels of 0\.44 x 0\.44 x 0\.44 Angstrom came for pixels of 0\.4"):
        refine_atoms(series, traced, volume=volume(0.44))
    with pytest.raises(InputError, match="atoms lie outside the volume"):
        refine_atoms(series, traced, volume=volume(PIXEL, 2))


def test_refine__refuses_pixels_that_are_no_numbers_or_not_there(series: xr.Dataset, traced: xr.Dataset) -> None:
    spoilt = series.copy(deep=True)
    spoilt["images"][3, 20, 20] = np.nan
    with pytest.raises(InputError, match="NaN or infinite pixels inside the mask; set the mask False there"):
        refine_atoms(spoilt, traced)
    with (
        Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50),
        pytest.raises(InputError, match="NaN or infinite pixels inside the mask"),
    ):
        refine_atoms(spoilt.chunk(), traced)
    spoilt["mask"][3, 20, 20] = False
    assert np.isfinite(refine_atoms(spoilt, traced, **QUICK)["position"]).all()
    with pytest.raises(InputError, match="0 tilts show anything but 0 where their mask is True"):
        refine_atoms(series.assign(mask=series["mask"] & False), traced)
    with pytest.raises(InputError, match="2 tilts show anything but 0"):
        refine_atoms(series.assign(images=series["images"].where(series["tilt"] < 2, 0.0)), traced)
