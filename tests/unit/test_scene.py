"""Balls painted in depth, against a plain painter; views, rods and movies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aetdist.errors import InputError
from aetdist.report._kernels import paint_balls
from aetdist.report.paper.movie import save_movie, turn
from aetdist.report.scene import Balls, frame_of, paint, view_of

RED, BLUE = "#ff0000", "#0000ff"


def nearest(centres: np.ndarray, radii: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Which ball is seen in each pixel, -1: none; pixel by pixel."""
    seen = np.full((rows, columns), -1)
    for row in range(rows):
        for column in range(columns):
            flat = (column - centres[:, 0]) ** 2 + (row - centres[:, 1]) ** 2
            inside = flat <= radii**2
            if inside.any():
                height = np.where(inside, centres[:, 2] + np.sqrt(np.maximum(radii**2 - flat, 0.0)), -np.inf)
                seen[row, column] = int(np.argmax(height))
    return seen


def test_paint_balls__shows_the_nearest_in_any_order() -> None:
    rng = np.random.default_rng(0)
    n, rows, columns = 40, 60, 50
    centres = rng.uniform((-5, -5, 0), (55, 65, 30), (n, 3))
    radii = rng.uniform(2.0, 9.0, n)
    # Colours that tell which ball it is, whatever the light: the share of red in it.
    share = (np.arange(n) + 1) / (n + 1)
    colours = np.stack([share, 1 - share, np.zeros(n)], axis=1) * 0.5
    expected = nearest(centres, radii, rows, columns)
    for order in (np.arange(n), rng.permutation(n)):
        image, depth = np.zeros((rows, columns, 4), np.float32), np.full((rows, columns), -np.inf)
        dark = np.array([0.0, 0.0, -1.0])  # from behind: no shine
        paint_balls(centres[order], radii[order], colours[order], dark, np.zeros(n), image, depth)
        np.testing.assert_array_equal(image[..., 3] > 0, expected >= 0)
        there = expected >= 0
        red = image[there][:, 0] / image[there][:, :2].sum(axis=1)
        np.testing.assert_allclose(red, share[expected[there]], atol=1e-5)


def test_view_of__turns_as_it_says() -> None:
    np.testing.assert_allclose(view_of() @ [1, 2, 3], [1, 2, 3])
    np.testing.assert_allclose(view_of(90.0) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(view_of(0.0, -90.0) @ [0, 0, 1], [0, 1, 0], atol=1e-12)  # z upwards
    turned = view_of(33.0, -65.0)
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turned) == pytest.approx(1.0)


def test_frame_of__holds_every_turn() -> None:
    balls = Balls.of(np.random.default_rng(1).normal(0.0, 5.0, (30, 3)), 1.0, RED)
    left, right, bottom, top = frame_of(balls, view_of(0.0, -70.0), round_z=True)
    for azimuth in range(0, 360, 15):
        now = frame_of(balls, view_of(azimuth, -70.0))
        assert left <= now[0] and now[1] <= right and bottom <= now[2] and now[3] <= top


def test_paint__is_to_scale_and_covers_what_is_behind() -> None:
    balls = Balls.of([[0.0, 0.0, 0.0]], 3.0, RED) + Balls.of([[0.0, 0.0, 5.0]], 1.0, BLUE)
    image = paint(balls, view_of(), (-4.0, 4.0, -5.0, 5.0), 10.0)
    assert image.shape == (100, 80, 4) and image.dtype == np.uint8
    assert image[50, 40, 2] > 100 > image[50, 40, 0]  # blue in front
    assert image[50, 20, 0] > image[50, 20, 2]  # red beside it
    assert (image[..., 3] > 127).sum() == pytest.approx(np.pi * 30.0**2, rel=0.02)
    behind = paint(balls, view_of(0.0, 180.0), (-4.0, 4.0, -5.0, 5.0), 10.0)
    assert behind[50, 40, 0] > behind[50, 40, 2]


def test_rods__reach_from_end_to_end() -> None:
    rods = Balls.rods([[0.0, 0.0, 0.0]], [[4.0, 0.0, 0.0]], 0.2, RED)
    assert rods.position[0].tolist() == [0, 0, 0] and rods.position[-1].tolist() == [4, 0, 0]
    assert np.diff(rods.position[:, 0]).max() <= 0.2
    assert len(Balls.rods(np.empty((0, 3)), np.empty((0, 3)), 0.2, RED).position) == 0


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png"])
def test_movie__goes_round_once(tmp_path: Path, suffix: str) -> None:
    balls = Balls.of(np.random.default_rng(2).normal(0.0, 5.0, (30, 3)), 1.0, RED)
    pictures = list(turn(balls, {"Co": RED}, frames=6, width=61))
    assert len(pictures) == 6 and pictures[0].shape[1] == 60 and pictures[0].shape[0] % 2 == 0
    assert not np.array_equal(pictures[0], pictures[3])
    path = save_movie(pictures, tmp_path / f"movie{suffix}", seconds=1.2)
    with Image.open(path) as movie:
        assert movie.n_frames == 6 and movie.size == pictures[0].shape[1::-1]
        movie.seek(5)
        last = np.asarray(movie.convert("RGB"), dtype=float)
    assert np.abs(last - pictures[5]).mean() < 12.0  # WebP and GIF lose a little


def test_movie__of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match=r"\.avi"):
        save_movie([picture], tmp_path / "movie.avi")
    monkeypatch.setattr("aetdist.report.paper.movie.FFMpegWriter.isAvailable", lambda: False)
    with pytest.raises(InputError, match="ffmpeg"):
        save_movie([picture], tmp_path / "movie.mp4")
