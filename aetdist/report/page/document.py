"""The page: its sections in the order of the experiment, and the files it is put together from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import xarray as xr

from ...errors import InputError
from ...io import Store
from ...io.places import local_path
from ..findings import Findings, Picture, find, pictures, summary
from ..pictures import field_of
from .atoms3d import atoms_data
from .figures import figure, section_of
from .provenance import by_stage, commands_block, records_table
from .statistics import figures_table, statistics, statistics_table
from .strips import Strip, slice_strips, tilt_strip

#: Sections in the order of the page, and the headings of what a store need not have.
HEADINGS = {
    "view": "Atoms in three dimensions",
    "tilts": "Tilt series",
    "corrections": "Alignment and angles",
    "volume": "Volume",
    "film": "Film",
    "atoms": "Atoms",
    "trust": "Validation",
    "order": "Order",
    "statistics": "Statistics",
    "provenance": "How it was made",
}


def write_page(
    store_path: str | Path,
    output: str | Path,
    *,
    truth: xr.Dataset | str | Path | None = None,
    tolerance: float = 0.75,
    title: str | None = None,
    pictures_to: str | Path | None = None,
    commands: Sequence[str] = (),
) -> Path:
    """Computes: one HTML file on what a store holds, with its pictures inside and no link to anything else.

    Parameters
    ----------
    store_path : str or Path
        The store. Groups that are absent or incomplete are left out.
    output : str or Path
        The file to write; one that is there is replaced.
    truth : xarray.Dataset, str or Path, optional
        True atoms, or the file they stand in, to hold the found ones against. The default is the
        group ``truth`` of the store, which simulated ones have.
    tolerance : float
        Largest distance in Angstrom at which a found atom counts as a true one.
    title : str, optional
        Heading; the default is the name of the store.
    pictures_to : str or Path, optional
        Folder that gets the pictures as PNG files too; made if it is not there.
    commands : sequence of str
        Command lines that repeat what the store holds.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If there is no folder for the file.
    StoreError
        If there is no store.
    """
    output = local_path(output)
    if not output.absolute().parent.is_dir():
        raise InputError(f"There is no folder {output.parent} to write {output.name} into; make it, or name another.")
    with Store.open(store_path) as store:
        findings = find(store, truth=truth, tolerance=tolerance, title=title)
        groups = sorted(store.groups(), key=by_stage)
        records = {group: record.to_dict() for group in groups if (record := store.record(group)) is not None}
        page = _page(findings, records, commands, pictures_to)
    partial = output.with_name(output.name + ".partial")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return output


def _page(
    findings: Findings, records: Mapping[str, Mapping[str, Any]], commands: Sequence[str], folder: str | Path | None
) -> str:
    drawn: dict[str, list[Picture]] = {}
    for picture in pictures(findings):
        drawn.setdefault(section_of(picture), []).append(picture)
    strips = {"tilts": list(_tilt_strips(findings)), "volume": _volume_strips(findings)}
    models = {name: atoms for name, atoms in findings.models.items() if atoms.sizes["atom"]}
    atoms = atoms_data(models, findings.order)
    own = {
        "view": _view(atoms["models"]),
        "statistics": statistics_table(statistics(findings)),
        "provenance": commands_block(commands)
        + f"<details><summary>Records of all {len(records)} groups</summary>{records_table(records)}</details>",
    }
    sections = {}
    for name in HEADINGS:
        shown = [strip.html() for strip in strips.get(name, ())]
        content = own.get(name, "") + (f'<div class="strips">{"".join(shown)}</div>' if shown else "")
        if name in drawn:
            content += f'<div class="pictures">\n{chr(10).join(figure(p, folder) for p in drawn[name])}\n</div>'
        content += figures_table(findings.order) if name == "order" else ""
        if content:
            sections[name] = content
    data: dict[str, Any] = dict(strip.data() for group in strips.values() for strip in group)
    if "view" in sections:
        data["atoms-data"] = atoms
    return Template(_file("page.html")).substitute(
        title=escape(findings.title),
        style=_file("style.css"),
        subtitle=escape(_subtitle(findings)),
        navigation="".join(f'<a href="#{name}">{HEADINGS[name]}</a>' for name in sections),
        sections=_summary(findings)
        + "\n".join(
            f'<section id="{name}"><h2>{HEADINGS[name]}</h2>\n{text}\n</section>' for name, text in sections.items()
        ),
        data=_data(data),
        script="".join(map(_file, ("page.js", *(("spheres.js", "atoms3d.js") if "view" in sections else ())))),
    )


def _file(name: str) -> str:
    """One of the files that the page is put together from."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _data(data: Mapping[str, Any]) -> str:
    """Data of the scripts; no "<" in them ends an element."""
    return "\n".join(
        f'<script type="application/json" id="{name}">{json.dumps(content).replace("<", chr(92) + "u003c")}</script>'
        for name, content in data.items()
    )


def _summary(findings: Findings) -> str:
    """The numbers that the page begins with, and what is not there."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in summary(findings).items()
    )
    absent = ", ".join(f"{what} ({command})" for what, command in _absent(findings))
    note = f'<p class="soft absent">Not in this store: {escape(absent)}.</p>' if absent else ""
    return f'<section id="summary" aria-label="Summary"><dl class="numbers">{cells}</dl>{note}</section>\n'


def _absent(findings: Findings) -> Iterator[tuple[str, str]]:
    """What a store could hold and does not, and the command that makes it."""
    atoms = next(iter(findings.models.values()), None)
    if findings.series is not None or atoms is None:
        for there, what, command in (
            (findings.series, "an aligned tilt series", "aetdist align"),
            (findings.refined, "refined angles", "aetdist refine-angles"),
            (findings.volume, "a volume", "aetdist reconstruct or scan"),
            (atoms, "atoms", "aetdist trace"),
            (None if atoms is None else atoms.get("type"), "types", "aetdist classify"),
            (None if atoms is None else atoms.get("position_sigma"), "refined atoms", "aetdist refine"),
            (findings.validation, "a validation", "aetdist validate"),
        ):
            if there is None:
                yield what, command
    if not findings.order:
        yield "analyses of the order", "aetdist analyze"


def _subtitle(findings: Findings) -> str:
    made = "simulated" if findings.series is not None and findings.series.attrs.get("source") == "simulated" else ""
    parts = ["Atomic electron tomography", made, "lengths in Å, angles in degrees"]
    return ", ".join(part for part in parts if part) + "."


def _tilt_strips(findings: Findings) -> Iterator[Strip]:
    for state, series in (
        ("raw", findings.raw),
        ("preprocessed", findings.preprocessed),
        ("aligned", findings.series),
        ("refined", findings.refined),
    ):
        if series is not None:
            yield tilt_strip(series, state)


def _volume_strips(findings: Findings) -> list[Strip]:
    if findings.volume is None:
        return []
    return slice_strips(findings.volume, None if findings.series is None else field_of(findings.series))


def _view(models: Sequence[Mapping[str, Any]]) -> str:
    """Where the three-dimensional view is drawn, and what steers it."""
    if not models:
        return ""
    n, shown = (sum(model[key] for model in models) for key in ("n", "n_shown"))
    choice = ""
    if len(models) > 1:
        options = "".join(f'<option value="{i}">{escape(model["name"])}</option>' for i, model in enumerate(models))
        choice = f"<label>Model <select>{options}</select></label>"
    text = f"{n:,} atoms" if shown == n else f"{shown:,} of {n:,} atoms, evenly by number"
    if len(models) > 1:
        text += f" in {len(models)} models"
    return Template(_file("view.html")).substitute(text=text, choice=choice)
