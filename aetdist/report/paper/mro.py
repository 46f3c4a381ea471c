"""Panels of medium-range order: pairs of clusters, clusters on lattices, what they measure, and chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator

from ...errors import InputError
from ..mro import (
    KINDS,
    LATTICE_COLOURS,
    kinds_of,
    lattice_bonds,
    plot_centre_distances,
    plot_measure,
    plot_sizes,
    turned,
)
from ..scene import Balls
from ..style import COLOURS
from .catalogue import Material
from .order import TILTED, colours_of, positions_of, types_of
from .style import add_key, show_scene

SHARED_COLOUR = COLOURS[5]
_SHARING = {1: "one atom", 2: "two atoms", 3: "three atoms", 4: "four atoms", 5: "five atoms"}


def fill_pair(n: int) -> Callable[[SubFigure, Material], None]:
    """What fills a panel with two solute-centred clusters that share `n` atoms."""

    def fill(panel: SubFigure, material: Material) -> None:
        chosen = material.found["shared_pairs"].sel(shared=n)
        centres = [int(chosen["first"]), int(chosen["second"])]
        if centres[0] < 0:
            raise InputError(f"No two clusters share {_SHARING[n]}.")
        position, kind = positions_of(material), types_of(material)
        clusters = [np.append(_around(material.found["voronoi"], c), c) for c in centres]
        shared = np.intersect1d(clusters[0], clusters[1])
        atoms = np.union1d(clusters[0], clusters[1])
        colours = np.where(np.isin(atoms, shared), SHARED_COLOUR, colours_of(kind[atoms]))
        balls = Balls.of(position[atoms], 0.7, colours.tolist())
        balls.radius[np.isin(atoms, centres)] = 1.0
        for centre, members in zip(centres, clusters, strict=True):
            around = members[members != centre]
            balls += Balls.rods(np.repeat(position[[centre]], len(around), axis=0), position[around], 0.13, "#b0b0b0")
        axes = panel.add_subplot()
        middle = position[centres].mean(axis=0)
        view = _side_view(position[centres[1]] - position[centres[0]], position[shared].mean(axis=0) - middle)
        middle = view @ middle
        frame = middle[0] - 7.0, middle[0] + 7.0, middle[1] - 5.0, middle[1] + 5.5
        show_scene(axes, balls, view, width=45.0, bar=2.0, cross=False, frame=frame)
        axes.set_title(f"{_SHARING[n]} shared: {int(chosen['n_pairs']):,} pairs")
        if n == 1:
            names = {material.type_name(t): COLOURS[(t - 1) % len(COLOURS)] for t in np.unique(kind).tolist()}
            place = {"loc": "upper center", "bbox_to_anchor": (0.6, 0.02)}
            add_key(axes, names | {"shared": SHARED_COLOUR}, **place)

    return fill


def fill_pair_counts(panel: SubFigure, material: Material) -> None:
    """How many pairs of neighbouring clusters share 1 to 5 atoms."""
    pairs = material.found["shared_pairs"]
    axes = panel.add_subplot()
    bars = axes.bar(pairs["shared"].values, pairs["n_pairs"].values, 0.65, color=COLOURS[0])
    axes.bar_label(bars, [f"{n:,}" for n in pairs["n_pairs"].values], padding=2, fontsize="small")
    axes.margins(y=0.12)
    axes.set(xlabel="atoms shared by two clusters", ylabel="pairs of clusters")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def fill_sizes(panel: SubFigure, material: Material) -> None:
    """Clusters of each lattice by size, and what chance gives."""
    mro = material.found["medium_range_order"]
    rows = panel.subplots(len(kinds_of(mro)), 1, sharex=True, squeeze=False).ravel()
    plot_sizes(list(rows), mro, material.found.get("mro_significance"))


def fill_totals(panel: SubFigure, material: Material) -> None:
    """Clusters on each lattice, and what chance gives."""
    mro, chance = material.found["medium_range_order"], material.found.get("mro_significance")
    kinds = kinds_of(mro)
    counts = [int(np.count_nonzero(mro["mro_type"].values == kind)) for kind in kinds]
    axes = panel.add_subplot()
    bars = axes.bar(kinds, counts, 0.65, color=[LATTICE_COLOURS[kind] for kind in kinds])
    axes.bar_label(bars, padding=2, fontsize="small")
    if chance is not None:
        known = [kind for kind in kinds if kind in chance["mro_type"]]
        total = chance["surrogate_total"].sel(mro_type=known)
        axes.errorbar(
            known, total.mean("sample"), yerr=total.std("sample"), fmt="_", color="grey", capsize=2, markersize=9,
            label="by chance",
        )  # fmt: skip
        axes.legend(fontsize="small")
    axes.margins(y=0.12)
    axes.set(xlabel="lattice", ylabel="clusters")


def fill_cluster(kind: str) -> Callable[[SubFigure, Material], None]:
    """What fills a panel with the largest cluster on a lattice."""

    def fill(panel: SubFigure, material: Material) -> None:
        show_largest(panel, material, material.found["medium_range_order"], kind)

    return fill


def show_largest(panel: SubFigure, material: Material, mro: xr.Dataset, kind: str) -> None:
    """The largest cluster on a lattice: its centres, and rods from site to site of the lattice that was fitted."""
    of_kind = np.flatnonzero(mro["mro_type"].values == kind)
    if not of_kind.size:
        raise InputError(f"There is no cluster on the lattice {kind}.")
    i = int(of_kind[np.argmax(mro["size"].values[of_kind])])
    members = np.flatnonzero(mro["mro_label"].values == i)
    rotation, scale, shift = mro["rotation"].values[i], float(mro["scale"][i]), mro["shift"].values[i]
    site = shift + scale * mro["site"].values[members] @ rotation.T
    where = {int(m): n for n, m in enumerate(members)}
    ends = np.array([(where[a], where[b]) for a, b in lattice_bonds(mro, members)], dtype=int).reshape(-1, 2)
    balls = Balls.of(positions_of(material)[members], 1.1, LATTICE_COLOURS[kind])
    balls += Balls.rods(site[ends[:, 0]], site[ends[:, 1]], 0.16, "#909090")
    axes = panel.add_subplot()
    # A little off a low-index axis, so that no row of sites hides behind another.
    show_scene(axes, balls, turned(13.0, 8.0) @ rotation.T, width=45.0, bar=5.0, cross=False)
    axes.set_title(f"{kind}, {len(members)} centres, rms {float(mro['rms'][i]):.2f} Å")


def fill_map(panel: SubFigure, material: Material) -> None:
    """All clusters in the sample."""
    mro = material.found["medium_range_order"]
    axes = panel.add_subplot()
    show_scene(axes, balls_of_clusters(positions_of(material), mro), TILTED, width=60.0)
    names = {kind: LATTICE_COLOURS[kind] for kind in kinds_of(mro)}
    add_key(axes, names, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def balls_of_clusters(position: np.ndarray, mro: xr.Dataset) -> Balls:
    """Centres and bonds of all clusters by lattice, in a cloud of the other atoms."""
    label = mro["mro_label"].values
    balls = Balls.of(position[np.isnan(label)], 0.3, "#d4d4d4")
    for kind in kinds_of(mro):
        colour = LATTICE_COLOURS[kind]
        of_kind = np.flatnonzero(mro["mro_type"].values == kind)
        balls += Balls.of(position[np.isin(label, of_kind)], 1.1, colour)
        pairs = [pair for i in of_kind for pair in lattice_bonds(mro, np.flatnonzero(label == i))]
        ends = np.array(pairs, dtype=int).reshape(-1, 2)
        balls += Balls.rods(position[ends[:, 0]], position[ends[:, 1]], 0.3, colour)
    return balls


def fill_orientations(panel: SubFigure, material: Material) -> None:
    """Pole figure, equal areas: where the crystal axes of the clusters point in the sample."""
    mro = material.found["medium_range_order"]
    axes = panel.add_subplot()
    turn = np.linspace(0.0, 2 * np.pi, 200)
    for tilt in (30.0, 60.0, 90.0):
        radius = np.sqrt(2) * np.sin(np.deg2rad(tilt) / 2)
        axes.plot(radius * np.cos(turn), radius * np.sin(turn), color="black" if tilt == 90 else "gray", linewidth=0.4)
        if tilt < 90:
            axes.annotate(f"{tilt:.0f}°", (0.0, radius), fontsize="small", color="gray", ha="center", va="bottom")
    for kind in kinds_of(mro):
        which = mro["mro_type"].values == kind
        own = np.eye(3)[2:] if kind == "hcp" else np.eye(3)  # the axis <0001>, or those of <100>
        poles = np.einsum("mij,aj->mai", mro["rotation"].values[which], own).reshape(-1, 3)
        poles *= np.where(poles[:, 2:] < 0, -1.0, 1.0)
        flat = poles[:, :2] * np.sqrt(1.0 / (1.0 + poles[:, 2:]))
        label = f"{kind} {'⟨0001⟩' if kind == 'hcp' else '⟨100⟩'}"
        axes.scatter(flat[:, 0], flat[:, 1], s=3, color=LATTICE_COLOURS[kind], linewidths=0, label=label)
    for name, place in (("x", (1.07, 0.0)), ("y", (0.0, 1.07))):
        axes.annotate(name, place, ha="center", va="center")
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title("directions in the sample, seen along z; circles: angle to z")
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2, handletextpad=0.1)


def fill_distances(panel: SubFigure, material: Material) -> None:
    """Partial g(r) of the centres of each lattice."""
    plot_centre_distances(panel.add_subplot(), material.found["mro_measures"])


def fill_scales(panel: SubFigure, material: Material) -> None:
    """Distance of nearest sites against the rms distance of centres from their sites, a mark for each cluster."""
    mro = material.found["medium_range_order"]
    axes = panel.add_subplot()
    for kind in kinds_of(mro):
        which = mro["mro_type"].values == kind
        size = 0.8 * mro["size"].values[which]
        axes.scatter(
            mro["scale"].values[which], mro["rms"].values[which], s=size, color=LATTICE_COLOURS[kind], linewidths=0,
            alpha=0.8, label=kind,
        )  # fmt: skip
    axes.set(xlabel="distance of nearest sites (Å)", ylabel="rms distance from the sites (Å)", ylim=(0, None))
    axes.set_title("area: number of centres")
    axes.legend(fontsize="small", loc="lower left", ncols=2, handletextpad=0.1)


def fill_measure(name: str) -> Callable[[SubFigure, Material], None]:
    """What fills a panel with the clusters' "length" or "volume"."""

    def fill(panel: SubFigure, material: Material) -> None:
        mro, measures = material.found["medium_range_order"], material.found["mro_measures"]
        plot_measure(panel.add_subplot(), mro, measures[name].values, name)

    return fill


def fill_tolerances(name: str, label: str) -> Callable[[SubFigure, Material], None]:
    """What fills a panel with the number of clusters ("count") or of their "centres" for several tolerances."""

    def fill(panel: SubFigure, material: Material) -> None:
        table = material.found["tolerances"]
        kinds = [kind for kind in KINDS if kind in table["mro_type"]]
        axes = panel.add_subplot()
        n = table.sizes["largest_deviation"]
        for k, kind in enumerate(kinds):
            places = np.arange(n) + 0.8 * (k - (len(kinds) - 1) / 2) / len(kinds)
            bars = axes.bar(
                places, table[name].sel(mro_type=kind), 0.76 / len(kinds), color=LATTICE_COLOURS[kind], label=kind
            )
            axes.bar_label(bars, padding=1, fontsize="small")
        axes.set_xticks(range(n), [f"{t:g}" for t in table["largest_deviation"].values])
        axes.margins(y=0.2)
        axes.set(xlabel="largest distance from a site (Å)", ylabel=label)
        axes.legend(fontsize="small", ncols=len(kinds), loc="upper center", handlelength=0.8, columnspacing=0.8)

    return fill


def fill_icosahedra(panel: SubFigure, material: Material) -> None:
    """Clusters on icosahedra by size, for two tolerances."""
    axes = panel.add_subplot()
    found = [material.found["icosahedra"], material.found["icosahedra_loose"]]
    largest = max((int(mro["size"].max()) for mro in found if mro.sizes["mro"]), default=5)
    sizes = np.arange(5, max(largest, 6) + 1)
    for k, mro in enumerate(found):
        counts = [int(np.count_nonzero(mro["size"].values == size)) for size in sizes]
        label = f"within {float(mro.attrs['tolerance']):g} Å"
        bars = axes.bar(sizes + 0.4 * (k - 0.5), counts, 0.38, color=COLOURS[k], label=label)
        axes.bar_label(bars, padding=1, fontsize="small")
    axes.margins(y=0.12)
    axes.set(xlabel="centres on an icosahedron (of 13 sites)", ylabel="clusters")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize="small")


def fill_largest_icosahedron(panel: SubFigure, material: Material) -> None:
    """The icosahedron with the most centres, where its sites may be further off."""
    show_largest(panel, material, material.found["icosahedra_loose"], "icosahedron")


def _around(cells: xr.Dataset, atom: int) -> np.ndarray:
    """Atoms whose Voronoi cells share a face with an atom's."""
    one, other = cells["face_atom"].values, cells["face_neighbour"].values
    return np.union1d(other[one == atom], one[other == atom])


def _side_view(along: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Rotation with `along` to the right and `up` as far upwards as it goes."""
    x = along / np.linalg.norm(along)
    up = up - (up @ x) * x
    if np.linalg.norm(up) < 1e-6:
        up = np.cross(x, np.eye(3)[np.argmin(np.abs(x))])
    y = up / np.linalg.norm(up)
    return np.stack([x, y, np.cross(x, y)])
