"""Turning movies of atoms and of medium-range order, as animated WebP, GIF or PNG, or MP4 where ffmpeg is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.animation import FFMpegWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ...errors import InputError
from ..mro import KINDS
from ..scene import Balls, frame_of, paint, view_of
from ..style import COLOURS
from .catalogue import Material
from .mro import balls_of_clusters
from .order import positions_of, types_of

FRAMES, SECONDS = 90, 9.0
"""Of one turn."""
_WIDTH = 480  # pixels
_FORMATS = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG"}


def write_movies(material: Material, folder: Path, *, frames: int = FRAMES, width: int = _WIDTH) -> dict[str, Path]:
    """Computes: movies of one turn: all atoms, the atoms of each type, the medium-range order; WebP, and MP4.

    Parameters
    ----------
    material : Material
        With atoms; with ``medium_range_order`` there is a movie of that too.
    folder : Path
        Where they go.
    frames, width : int
        Pictures of a turn, and their width in pixels.

    Returns
    -------
    dict of str to Path
        File of each movie by its name; those in MP4 end in "_mp4", where ffmpeg is installed.
    """
    written: dict[str, Path] = {}
    for name, balls in _movies(material):
        pictures = list(turn(balls, frames=frames, width=width))
        written[name] = save_movie(pictures, folder / f"{name}.webp")
        if FFMpegWriter.isAvailable():
            written[f"{name}_mp4"] = save_movie(pictures, folder / f"{name}.mp4")
    return written


def _movies(material: Material) -> Iterator[tuple[str, Balls]]:
    """Name and balls of each movie, about the middle of the sample."""
    position, kind = positions_of(material), types_of(material)
    position = position - 0.5 * (position.min(axis=0) + position.max(axis=0))
    colours = np.array(COLOURS)[(kind - 1) % len(COLOURS)]
    yield "movie_atoms", Balls.of(position, 1.35, colours.tolist())
    mro = material.found.get("medium_range_order")
    if mro is not None and np.isin(KINDS, mro["mro_type"].values).any():
        yield "movie_medium_range_order", balls_of_clusters(position, mro)


def turn(balls: Balls, *, frames: int = FRAMES, width: int = _WIDTH, elevation: float = -75.0) -> Iterator[np.ndarray]:
    """Pictures of one turn about z, a little from above.

    Yields
    ------
    ndarray, shape (rows, width, 3), uint8
        On white; the first row is the highest. Both sizes are even, as MP4 wants them.
    """
    frame = frame_of(balls, view_of(0.0, elevation), round_z=True)
    pad = 0.02 * (frame[1] - frame[0])
    frame = frame[0] - pad, frame[1] + pad, frame[2] - pad, frame[3] + pad
    pixels = 2 * (width // 2) / (frame[1] - frame[0])
    rows = 2 * max(1, round((frame[3] - frame[2]) * pixels / 2))
    frame = (*frame[:2], frame[2], frame[2] + rows / pixels)
    for k in range(frames):
        seen = paint(balls, view_of(360.0 * k / frames, elevation), frame, pixels)[::-1].astype(np.float32)
        opaque = seen[..., 3:] / 255.0
        yield np.round(seen[..., :3] * opaque + 255.0 * (1.0 - opaque)).astype(np.uint8)


def save_movie(pictures: list[np.ndarray], path: Path, *, seconds: float = SECONDS) -> Path:
    """Write pictures as a movie that goes round and round.

    Parameters
    ----------
    pictures : list of ndarray, shape (rows, columns, 3), uint8
    path : Path
        Ends in .webp, .gif, .png (animated), or .mp4, which needs ffmpeg.
    seconds : float
        Of one round.

    Raises
    ------
    InputError
        If the name ends otherwise, or ffmpeg is needed and missing.
    """
    if path.suffix == ".mp4":
        return _save_mp4(pictures, path, len(pictures) / seconds)
    if path.suffix not in _FORMATS:
        raise InputError(f"{path.name} ends in {path.suffix!r}; a movie is written as .webp, .gif, .png or .mp4.")
    first, *others = [Image.fromarray(picture) for picture in pictures]
    options = {"quality": 75, "method": 2} if path.suffix == ".webp" else {}
    first.save(
        path, format=_FORMATS[path.suffix], save_all=True, append_images=others, loop=0,
        duration=round(1000.0 * seconds / len(pictures)), **options,
    )  # fmt: skip
    return path


def _save_mp4(pictures: list[np.ndarray], path: Path, rate: float) -> Path:
    """By ffmpeg, as matplotlib calls it."""
    if not FFMpegWriter.isAvailable():
        raise InputError("MP4 needs ffmpeg, which is not installed; name a .webp, .gif or .png file.")
    rows, columns = pictures[0].shape[:2]
    figure = Figure(figsize=(columns / 100, rows / 100), dpi=100)
    FigureCanvasAgg(figure)
    drawn = figure.figimage(pictures[0], origin="upper")
    writer = FFMpegWriter(fps=round(rate), codec="libx264", extra_args=["-pix_fmt", "yuv420p", "-crf", "20"])
    with writer.saving(figure, str(path), dpi=100):
        for picture in pictures:
            drawn.set_data(picture)
            writer.grab_frame()
    return path
