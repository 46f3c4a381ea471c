"""The pictures of a page, light and dark, by section; and as files."""

from __future__ import annotations

import logging
from html import escape
from pathlib import Path

import xarray as xr

from ...errors import AetdistError
from ...io import Store
from ...io.places import local_path
from ..findings import Picture, find, pictures
from ..style import data_uri, png, save_picture

log = logging.getLogger(__name__)

#: Section of each picture; that of all others is "order".
SECTIONS = {
    "tilts": ("preprocessing", "drift", "denoising"),
    "corrections": ("shifts", "common_lines", "repeats", "refinement"),
    "volume": ("slices", "r_factors", "r_map", "reprojection"),
    "film": ("film_maps", "windows", "disagreement"),
    "atoms": ("atoms", "atoms_on_slice", "types_on_slices", "intensities", "atom_refinement", "differences", "sigmas"),
    "trust": ("deviations", "validation"),
}


def section_of(picture: Picture) -> str:
    """Section of the page that a picture belongs to."""
    return next((section for section, names in SECTIONS.items() if picture.name in names), "order")


def figure(picture: Picture, folder: str | Path | None) -> str:
    """One picture, light and dark, with its caption; a picture that cannot be drawn says why."""
    caption = escape(picture.caption)
    try:
        drawn = png(picture.draw(theme="light"))
        light, dark = data_uri(drawn), data_uri(png(picture.draw(theme="dark")))
    except AetdistError as error:
        log.warning("no picture %s: %s", picture.name, error)
        return f"<figure><figcaption>{caption} Not drawn: {escape(str(error))}</figcaption></figure>"
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{picture.name}.png").write_bytes(drawn)
    return (
        f'<figure id="picture-{escape(picture.name)}"><picture><source media="(prefers-color-scheme: dark)" '
        f'srcset="{dark}"><img src="{light}" alt="{caption}"></picture><figcaption>{caption}</figcaption></figure>'
    )


def write_pictures(
    store_path: str | Path,
    folder: str | Path,
    *,
    truth: xr.Dataset | str | Path | None = None,
    tolerance: float = 0.75,
    form: str = "png",
) -> list[Path]:
    """Computes: the pictures of the report as single files (PNG, SVG or PDF) in a folder.

    Parameters
    ----------
    store_path, truth, tolerance
        As in :func:`aetdist.report.write_page`.
    folder : str or Path
        Made if it is not there.
    form : {"png", "svg", "pdf"}
        Kind of file.

    Returns
    -------
    list of Path
        The files.
    """
    folder = local_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with Store.open(store_path) as store:
        findings = find(store, truth=truth, tolerance=tolerance)
        return [save_picture(p.draw(theme="light"), folder / f"{p.name}.{form}") for p in pictures(findings)]
