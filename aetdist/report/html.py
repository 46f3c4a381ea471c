"""The report: one HTML file that needs nothing else, made of what a store holds."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import xarray as xr

from ..errors import AetdistError
from ..io import Store
from ..io.places import local_path
from .findings import Findings, Picture, find, pictures, summary
from .style import data_uri, png, save_picture

log = logging.getLogger(__name__)

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --soft: #5a5f66; --line: #d5d8dc; --card: #f5f6f7; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181c; --ink: #e8e8e8; --soft: #a7adb5; --line: #3a3e45; --card: #1f2227; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .75rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); font-size: .9rem; }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .75rem; margin: 0; }
.numbers div { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; }
.numbers dt { color: var(--soft); font-size: .85rem; } .numbers dd { margin: 0; font-size: 1.25rem; font-weight: 600; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem;
  align-items: start; }
figure { margin: 0; } figure img { width: 100%; max-width: 32rem; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; } code { font-size: .85em; }
.records td:not(:nth-child(3)):not(:nth-child(4)) { white-space: nowrap; }
@media (max-width: 40rem) {
  .records, .records tbody, .records tr, .records td { display: block; border: 0; padding: 0; }
  .records thead { display: none; } .records tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  .records td::before { content: attr(data-label) " "; color: var(--soft); } }
"""


def write_report(
    store_path: str | Path,
    output: str | Path,
    *,
    truth: xr.Dataset | str | Path | None = None,
    tolerance: float = 0.75,
    title: str | None = None,
    pictures_to: str | Path | None = None,
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

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StoreError
        If there is no store.
    """
    output = local_path(output)
    with Store.open(store_path) as store:
        findings = find(store, truth=truth, tolerance=tolerance, title=title)
        records = {group: store.record(group) for group in sorted(store.groups(), key=_order)}
        figures = "\n".join(_figure(picture, pictures_to) for picture in pictures(findings))
    rows = {group: record.to_dict() for group, record in records.items() if record is not None}
    page = _PAGE.format(
        title=escape(findings.title),
        style=STYLE,
        subtitle=escape(_subtitle(findings)),
        numbers=_numbers(summary(findings)),
        figures=figures or "<p>The store holds nothing to draw yet.</p>",
        acquisition=_table(_acquisition(findings.series)),
        records="\n".join(_record_row(group, record) for group, record in rows.items()),
    )
    partial = output.with_name(output.name + ".partial")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return output


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
        As in :func:`write_report`.
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


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p class="soft">{subtitle}</p></header>
<main>
<section aria-label="Summary">{numbers}</section>
<section><h2>Pictures</h2><div class="pictures">
{figures}
</div></section>
<section><h2>Acquisition</h2>{acquisition}</section>
<section><h2>How it was made</h2>
<table class="records"><thead><tr><th>Group</th><th>Stage</th><th>Parameters</th><th>Made from</th>
<th>Version, time</th><th>Digest</th></tr></thead><tbody>
{records}
</tbody></table></section>
</main>
</body>
</html>
"""


def _figure(picture: Picture, folder: str | Path | None) -> str:
    """One picture, light and dark, with its caption; a picture that cannot be drawn says why."""
    try:
        drawn = png(picture.draw(theme="light"))
        light, dark = data_uri(drawn), data_uri(png(picture.draw(theme="dark")))
    except AetdistError as error:
        log.warning("no picture %s: %s", picture.name, error)
        return f"<figure><figcaption>{escape(picture.caption)} Not drawn: {escape(str(error))}</figcaption></figure>"
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{picture.name}.png").write_bytes(drawn)
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(picture.caption)}"></picture>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _numbers(numbers: Mapping[str, str]) -> str:
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in numbers.items())
    return f'<dl class="numbers">{cells}</dl>'


def _subtitle(findings: Findings) -> str:
    made = "simulated" if findings.series is not None and findings.series.attrs.get("source") == "simulated" else ""
    parts = ["Atomic electron tomography", made, "lengths in Å, angles in degrees"]
    return ", ".join(part for part in parts if part) + "."


def _acquisition(series: xr.Dataset | None) -> dict[str, str]:
    """Say what is known of how the series was taken."""
    if series is None:
        return {}
    known = {"pixels (x × y)": f"{series.sizes['x']} × {series.sizes['y']}"}
    if "pixel_size" in series:
        known["pixel size"] = f"{float(series['pixel_size']):g} Å"
    return known | {str(name): _short(value) for name, value in series.attrs.items()}


def _table(rows: Mapping[str, str]) -> str:
    if not rows:
        return '<p class="soft">No tilt series.</p>'
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table><tbody>{lines}</tbody></table>"


def _record_row(group: str, record: Mapping[str, Any]) -> str:
    parameters = ", ".join(
        f"{name} = {_short(value)}" for name, value in record["parameters"].items() if value is not None
    )
    if record["seed"] is not None and "seed" not in record["parameters"]:
        parameters += f", seed = {record['seed']}"
    cells = {
        "Group": escape(group),
        "Stage": escape(str(record["stage"])),
        "Parameters": escape(parameters or "none"),
        "Made from": escape(", ".join(f"{name} {digest[:10]}" for name, digest in record["inputs"].items()) or "files"),
        "Version, time": escape(f"{record['version']}, {record['created'][:16].replace('T', ' ')}"),
        "Digest": f"<code>{escape(str(record['digest'])[:10])}</code>",
    }
    return "<tr>" + "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in cells.items()) + "</tr>"


def _order(group: str) -> tuple[int, str]:
    """Groups in the order of the experiment, others after them."""
    stages = ("truth", "tilt_series", "scan", "volume", "atoms", "atoms_classified", "atoms_refined")
    first = group.partition("/")[0]
    return (stages.index(first) if first in stages else len(stages)), group


def _short(value: Any) -> str:
    """Write a parameter as text of at most a line or two."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
