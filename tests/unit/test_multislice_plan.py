"""Multislice without abTEM: its settings, the cell of a tilt, what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import xarray as xr

from aetdist.errors import InputError
from aetdist.geometry import centred_coordinates
from aetdist.simulate import Multislice, nanoparticle, simulate_tilt_series
from aetdist.simulate.cells import PADDING, REACH, plan_cell


def test_multislice__wavelength_and_sampling_are_those_of_the_microscope():
    assert Multislice(voltage=200.0).wavelength() == pytest.approx(0.0250793, rel=1e-5)
    assert Multislice(voltage=300.0).wavelength() == pytest.approx(0.0196875, rel=1e-5)
    # two thirds of the highest frequency 1 / (2 s) are kept: 2/3 wavelength / (2 s) = outer angle
    assert Multislice(detector=(38.0, 190.0)).finest() == pytest.approx(0.0250793 / 3 / 0.190, rel=1e-4)


def test_multislice__takes_the_microscope_from_a_tilt_series_and_gives_it_back():
    measured = xr.Dataset(attrs={"voltage_kV": 300.0, "convergence_mrad": 30.0, "detector_mrad": [40.0, 200.0]})
    settings = Multislice.of(measured, prism=2)
    assert settings == Multislice(voltage=300.0, convergence=30.0, detector=(40.0, 200.0), prism=2)
    assert {name: settings.attributes()[name] for name in measured.attrs} == measured.attrs
    assert Multislice.of(xr.Dataset(), voltage=80.0) == Multislice(voltage=80.0)


def test_plan_cell__holds_every_probe_that_sees_an_atom():
    lab = np.random.default_rng(0).uniform((-9, -6, -11), (9, 6, 11), (200, 3))
    x, y = centred_coordinates(200, 0.35), centred_coordinates(180, 0.35)
    cell = plan_cell(lab, x, y, Multislice(slice_thickness=2.0))
    columns, rows = x[list(cell.columns)], y[list(cell.rows)]
    for pixels, axis in ((columns, 0), (rows, 1)):
        assert pixels[0] - 0.35 < lab[:, axis].min() - REACH <= pixels[0]
        assert pixels[-1] <= lab[:, axis].max() + REACH < pixels[-1] + 0.35
        assert cell.low[axis] == pytest.approx(pixels[0] - PADDING)
        assert cell.low[axis] + cell.size[axis] == pytest.approx(pixels[-1] + PADDING)
    assert cell.low[2] <= lab[:, 2].min() - 2 and cell.low[2] + cell.size[2] >= lab[:, 2].max() + 2
    assert cell.slices * 2.0 == cell.size[2]
    assert max(np.divide(cell.size[:2], cell.grid)) <= Multislice().finest()


def test_plan_cell__of_a_film_is_the_field_and_the_reach_of_the_source():
    lab = np.random.default_rng(0).uniform(-60, 60, (5000, 3))
    x, y = centred_coordinates(40, 0.5), centred_coordinates(30, 0.5) + 7.0
    cell = plan_cell(lab, x, y, Multislice(source_size=0.4))
    assert (cell.columns, cell.rows) == (range(-4, 44), range(-4, 34))  # 4 x 0.4 / 0.5 pixels more
    assert plan_cell(lab, x + 200.0, y, Multislice()) is None


def test_plan_cell__prism_needs_fewer_waves_and_a_grid_that_it_divides():
    lab = np.random.default_rng(0).uniform(-20, 20, (500, 3))
    x = centred_coordinates(150, 0.35)
    every, one, three = (Multislice(detector=(38.0, 80.0), prism=prism) for prism in (0, 1, 3))
    cells = [plan_cell(lab, x, x, settings) for settings in (every, one, three)]
    assert cells[0].waves(every) == len(cells[0].columns) * len(cells[0].rows)
    area = cells[1].size[0] * cells[1].size[1]
    assert cells[1].waves(one) == pytest.approx(np.pi * (0.025 / one.wavelength()) ** 2 * area, abs=1)
    assert cells[2].waves(three) == pytest.approx(cells[1].waves(one) / 9, abs=1)
    assert all(n % 3 == 0 for n in cells[2].grid)
    assert cells[2].steps(three) < cells[1].steps(one) < cells[0].steps(every)
    assert cells[0].steps(Multislice(detector=(38.0, 80.0), frozen_phonons=5)) == 5 * cells[0].steps(every)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voltage": 0.0}, "voltage came as"),
        ({"convergence": -1.0}, "convergence came as"),
        ({"slice_thickness": np.nan}, "slice_thickness came as"),
        ({"detector": (80.0, 40.0)}, "detector came as"),
        ({"source_size": -0.1}, "source_size came as"),
        ({"thermal": -0.1}, "thermal came as"),
        ({"frozen_phonons": -1}, "frozen_phonons came as"),
        ({"prism": 1.5}, "prism came as"),
        ({"sampling": 0.1}, r"holds angles up to 84 mrad, but the detector reaches 190; give at most 0\.0440"),
    ],
)
def test_multislice__refuses_what_cannot_be(change, message):
    with pytest.raises(InputError, match=message):
        Multislice(**change)


def test_simulate_tilt_series__says_how_to_get_abtem(monkeypatch):
    monkeypatch.setitem(sys.modules, "abtem", None)
    with pytest.raises(InputError, match=r"pip install 'aetdist\[multislice\]'"):
        simulate_tilt_series(nanoparticle(9.0, seed=0), [0.0], multislice=True)
