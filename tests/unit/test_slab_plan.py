"""Slabs as plain integers: every voxel and every detector row has one keeper, and what they need is known before."""

from __future__ import annotations

import numpy as np
import pytest

from aetdist.blocks import slabs
from aetdist.blocks.slabs import (
    bytes_per_worker,
    cut_slabs,
    keeper,
    plan_slabs,
    slab_chunks,
    slab_geometry,
    slab_height,
)
from aetdist.errors import CapacityError, InputError
from aetdist.geometry import ParallelGeometry, matrices_from_euler
from aetdist.project import ParallelProjector, empty_volume


def geometry(
    angles: list[tuple[float, float, float]], volume: tuple[int, int, int], detector: tuple[int, int]
) -> ParallelGeometry:
    """Centred on the rotation."""
    return ParallelGeometry.centred(matrices_from_euler(np.array(angles)), volume, detector)


SINGLE = [(0.0, t, 0.0) for t in (-60.0, -10.0, 0.0, 35.0, 70.0)]
NEARLY = [(0.5, t, -0.4) for t in (-60.0, 0.0, 70.0)]
ANY = [(20.0, 40.0, 60.0), (100.0, -50.0, 10.0), (200.0, 5.0, 85.0), (0.0, 180.0, 0.0)]


@pytest.mark.parametrize("angles", [SINGLE, NEARLY, ANY, [(180.0, t, 0.0) for t in (-30.0, 30.0)]])
@pytest.mark.parametrize(("n_rows", "n_detector", "n_slabs"), [(40, 40, 3), (61, 40, 4), (30, 50, 7), (5, 20, 5)])
def test_cut_slabs__share_out_voxels_and_detector_rows(
    angles: list[tuple[float, float, float]], n_rows: int, n_detector: int, n_slabs: int
) -> None:
    """Without gaps or overlaps."""
    cut = cut_slabs(geometry(angles, (12, n_rows, 16), (n_detector, 18)), n_slabs)
    for ranges, n in (([s.rows for s in cut], n_rows), ([s.own for s in cut], n_detector)):
        np.testing.assert_array_equal(np.sort(np.concatenate([np.arange(*r) for r in ranges])), np.arange(n))
    assert all(s.height > 0 for s in cut) and len(cut) <= n_slabs


@pytest.mark.parametrize(("angles", "n_rows"), [(SINGLE, 33), (NEARLY, 90), (ANY, 33)])
def test_slab_geometry__projections_add_up_to_those_of_the_whole(
    angles: list[tuple[float, float, float]], n_rows: int
) -> None:
    """On the detector rows that each slab says it reaches; and every owner finds them."""
    whole = geometry(angles, (14, n_rows, 20), (36, 24))
    volume = empty_volume(whole.volume_shape)
    volume[...] = np.random.default_rng(1).random(volume.shape, dtype=np.float32)
    total = np.zeros((whole.n_tilts, 36, 24), np.float32)
    cut = cut_slabs(whole, 4)
    for slab in cut:
        part = ParallelProjector(slab_geometry(whole, slab)).forward(volume[:, slice(*slab.rows)])
        for owner in cut:
            rows = slab.shared(owner)
            if rows is not None:
                total[:, slice(*rows)] += part[:, rows[0] - slab.seen[0] : rows[1] - slab.seen[0]]
    wanted = ParallelProjector(whole).forward(volume)
    np.testing.assert_allclose(total, wanted, atol=1e-5 * float(wanted.max()))


def test_cut_slabs__of_a_single_axis_reach_few_rows_of_their_neighbours() -> None:
    """Ten pixels of margin on either side, which off-axis angles widen; single-axis owners are the slabs above."""
    cut = cut_slabs(geometry(SINGLE, (40, 120, 40), (120, 40)), 4)
    assert [s.own for s in cut] == [s.rows for s in cut]
    assert all(s.rows[0] - s.seen[0] <= 11 and s.seen[1] - s.rows[1] <= 11 for s in cut)
    tilted = cut_slabs(geometry([(5.0, 0.0, 0.0)], (40, 120, 400), (120, 400)), 4)
    assert tilted[1].rows[0] - tilted[1].seen[0] > 20


@pytest.mark.parametrize(("n_rows", "n_slabs"), [(1, 1), (47, 3), (400, 3), (1000, 3), (129, 1), (4097, 8)])
def test_slab_height__is_whole_chunks(n_rows: int, n_slabs: int) -> None:
    """Chunks stay short, and the first slab is not much higher than an even share."""
    height = slab_height(n_rows, n_slabs)
    nz, chunk, nx = slab_chunks((500, n_rows, 7), height)
    assert height % chunk == 0 and chunk <= 128 and (nz, nx) == (128, 7)
    assert 0 <= height - n_rows / n_slabs < 1 + np.ceil(height / 128)
    assert slab_chunks((500, n_rows, 7), min(height, n_rows))[1] == chunk


@pytest.mark.parametrize(("n_slabs", "n_workers"), [(1, 3), (3, 3), (7, 3), (4, 8)])
def test_keeper__shares_slabs_out_evenly_and_in_order(n_slabs: int, n_workers: int) -> None:
    """No worker keeps more than one slab more than another that has any."""
    keepers = [keeper(i, n_slabs, n_workers) for i in range(n_slabs)]
    assert keepers == sorted(keepers) and max(keepers) < n_workers
    counts = np.bincount(keepers)
    assert counts.min() >= 1 and np.ptp(counts) <= 1


def test_bytes_per_worker__falls_with_the_workers() -> None:
    """Nearly as one over their number; more threads need more scratch."""
    whole = geometry(SINGLE, (200, 400, 200), (400, 200))
    one, four = (bytes_per_worker(whole, cut_slabs(whole, n), n) for n in (1, 4))
    assert 3 < one / four < 4
    cut = cut_slabs(whole, 4)
    assert bytes_per_worker(whole, cut, 2, threads=2) > bytes_per_worker(whole, cut, 2)
    assert one > 200 * 400 * 200 * 4 * 4


def test_plan_slabs__takes_more_slabs_where_scratch_is_short() -> None:
    """One per worker where that fits; a number that is asked for is kept to."""
    whole = geometry(SINGLE, (60, 160, 60), (160, 60))
    need = [bytes_per_worker(whole, cut_slabs(whole, n), 2) for n in (2, 4)]
    assert need[1] < need[0]
    assert len(plan_slabs(whole, 2, need[0])) == 2
    assert len(plan_slabs(whole, 2, need[0] - 1)) == 4
    assert len(plan_slabs(whole, 2, need[0], slabs=5)) == 5
    with pytest.raises(CapacityError):
        plan_slabs(whole, 2, need[0] - 1, slabs=2)


def test_plan_slabs__says_how_many_workers_would_do() -> None:
    """As many as it says are enough; where no number is, it asks for more memory."""
    whole = geometry(SINGLE, (60, 160, 60), (160, 60))
    available = bytes_per_worker(whole, cut_slabs(whole, 16), 2) * 2 // 3
    with pytest.raises(
        CapacityError, match=r"60 x 160 x 60 voxels .* in each of 2 workers.*start (\d+) workers"
    ) as error:
        plan_slabs(whole, 2, available)
    enough = int(str(error.value).split("start ")[1].split()[0])
    assert plan_slabs(whole, enough, available)
    with pytest.raises(CapacityError, match=r"start workers with more memory \(--memory-limit\)"):
        plan_slabs(whole, 2, 1000)


@pytest.mark.parametrize(("wrong", "message"), [(0, "0 slabs"), (161, "needed are 1 to 160"), ("all", "'all'.*'auto'")])
def test_plan_slabs__refuses_numbers_that_make_no_sense(wrong: int | str, message: str) -> None:
    """Whatever the memory."""
    with pytest.raises(InputError, match=message):
        plan_slabs(geometry(SINGLE, (60, 160, 60), (160, 60)), 2, 2**40, slabs=wrong)


def test_slabs__plan_in_a_moment_for_the_largest_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only integers: no array of the size of the volume is made."""
    monkeypatch.setattr(slabs.np, "zeros", None)
    whole = geometry(SINGLE, (2000, 4000, 4000), (4000, 4000))
    assert len(plan_slabs(whole, 64, 2**36)) == 64
