"""Turning movies of atoms and of medium-range order, as animated WebP, GIF or PNG, or MP4 where ffmpeg is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.animation import FFMpegWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ...errors import InputError
from ..mro import LATTICE_COLOURS, kinds_of
from ..scene import Balls, frame_of, paint, view_of
from ..style import COLOURS, bar_length
from .catalogue import Material
from .mro import balls_of_clusters
from .order import balls_of_nuclei, colours_of, positions_of, types_of

FRAMES, SECONDS = 90, 9.0
"""Of one turn."""
_WIDTH = 480  # pixels
_FORMATS = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG"}


def write_movies(material: Material, folder: Path, *, frames: int = FRAMES, width: int = _WIDTH) -> dict[str, Path]:
    """Computes: movies of one turn: the atoms by type, crystal nuclei, medium-range order; WebP, and MP4.

    Parameters
    ----------
    material : Material
        With atoms; with ``nuclei`` and ``medium_range_order`` there are movies of those too.
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
    for name, balls, key in _movies(material):
        pictures = list(turn(balls, key, frames=frames, width=width))
        written[name] = save_movie(pictures, folder / f"{name}.webp")
        if FFMpegWriter.isAvailable():
            written[f"{name}_mp4"] = save_movie(pictures, folder / f"{name}.mp4")
    return written


def _movies(material: Material) -> Iterator[tuple[str, Balls, dict[str, str]]]:
    """Name, balls and meaning of the colours of each movie, about the middle of the sample."""
    position, kind = positions_of(material), types_of(material)
    position = position - 0.5 * (position.min(axis=0) + position.max(axis=0))
    types = {material.type_name(t): COLOURS[(t - 1) % len(COLOURS)] for t in np.unique(kind).tolist()}
    yield "movie_atoms", Balls.of(position, 1.35, colours_of(kind)), types
    if "nuclei" in material.found:
        with contextlib.suppress(InputError):  # there are none
            yield "movie_nuclei", balls_of_nuclei(position, material.found["nuclei"]), {}
    mro = material.found.get("medium_range_order")
    if mro is not None and mro.sizes["mro"]:
        lattices = {kind: LATTICE_COLOURS[kind] for kind in kinds_of(mro)}
        yield "movie_medium_range_order", balls_of_clusters(position, mro), lattices


def turn(
    balls: Balls,
    key: Mapping[str, str] | None = None,
    *,
    frames: int = FRAMES,
    width: int = _WIDTH,
    elevation: float = -75.0,
) -> Iterator[np.ndarray]:
    """Pictures of one turn about z, a little from above, with a scale bar and what the colours mean below.

    Parameters
    ----------
    balls : Balls
        The origin stays in the middle.
    key : mapping of str to str, optional
        Colours by name.
    frames, width : int
        Pictures, and their width in pixels.
    elevation : float
        As in :func:`~aetdist.report.scene.view_of`, degrees.

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
    strip = _strip(2 * (width // 2), pixels, key or {})
    for k in range(frames):
        seen = paint(balls, view_of(360.0 * k / frames, elevation), frame, pixels)[::-1].astype(np.float32)
        opaque = seen[..., 3:] / 255.0
        on_white = np.round(seen[..., :3] * opaque + 255.0 * (1.0 - opaque)).astype(np.uint8)
        yield np.concatenate([on_white, strip])


def _strip(width: int, pixels: float, key: Mapping[str, str]) -> np.ndarray:
    """A scale bar for so many pixels per Angstrom, and coloured marks with their names."""
    image = Image.new("RGB", (width, 2 * (width // 40) + 8), "white")
    draw, size = ImageDraw.Draw(image), max(8, width // 40)
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
    length, middle = bar_length(width / pixels), image.height // 2
    x = 0.03 * width
    draw.rectangle((x, middle - 2, x + length * pixels, middle + 2), fill="black")
    x += length * pixels + 0.6 * size
    text = f"{length / 10:g} nm" if length >= 10 else f"{length:g} Å"
    draw.text((x, middle), text, fill="black", font=font, anchor="lm")
    x += draw.textlength(text, font) + 2 * size
    for name, colour in key.items():
        draw.ellipse((x, middle - 0.4 * size, x + 0.8 * size, middle + 0.4 * size), fill=colour)
        draw.text((x + 1.1 * size, middle), name, fill="black", font=font, anchor="lm")
        x += 2.3 * size + draw.textlength(name, font)
    return np.asarray(image)


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
