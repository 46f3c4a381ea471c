"""The list of the figures, after those of Yang et al., Nature 592, 60-64 (2021)."""

from __future__ import annotations

from . import images, mro, order
from .catalogue import Panel, PaperFigure
from .style import PAGE

_SOLUTES = ("atoms", "voronoi", "shared_pairs")
_CLUSTERS = ("atoms", "medium_range_order")
_LATTICES = ("fcc", "hcp", "bcc", "sc")

FIGURES = (
    PaperFigure(
        "figure_1_structure", "Fig. 1",
        "From the images to the atoms: (a) images at four tilts, (b) their mean power spectrum, (c, d) slices of 2.4 Å "
        "through the volume, (e) the atoms by type, (f) crystal nuclei in the glass, (g) pair distribution functions "
        "with their Poisson error, (h) partial ones.",
        (
            Panel("a", ("series",), images.fill_images),
            Panel("b", ("series",), images.fill_power_spectrum),
            Panel("c", ("volume",), images.fill_slice("z")),
            Panel("d", ("volume",), images.fill_slice("x")),
            Panel("e", ("atoms",), order.fill_model),
            Panel("f", ("atoms", "bond_order", "nuclei"), order.fill_nuclei),
            Panel("g", ("pair_distribution",), order.fill_pair_distribution),
            Panel("h", ("pair_distribution",), order.fill_partial_distributions),
        ),
        4, (PAGE / 4, 48.0),
    ),
    PaperFigure(
        "figure_2_short_range_order", "Fig. 2",
        "Short-range order of the disordered atoms: (a) the commonest Voronoi indices, (b) faces by their edges, "
        "(c) coordination numbers, (d) Warren–Cowley parameters.",
        (
            Panel("a", ("bond_order", "voronoi"), order.fill_indices),
            Panel("b", ("bond_order", "voronoi"), order.fill_faces),
            Panel("c", ("coordination",), order.fill_coordination),
            Panel("d", ("coordination",), order.fill_warren_cowley),
        ),
        2, (PAGE / 2, 55.0),
    ),
    PaperFigure(
        "figure_3_connected_clusters", "Fig. 3",
        "Clusters of a solute atom and its neighbours: (a–e) pairs that share one to five atoms, those of median "
        "distance; (f) how many pairs share so many; (g) sizes of the clusters of solute centres on "
        "lattices, grey: by chance; (h) their number.",
        (
            *(Panel("abcde"[n - 1], _SOLUTES, mro.fill_pair(n)) for n in range(1, 6)),
            Panel("f", ("shared_pairs",), mro.fill_pair_counts),
            Panel("g", ("medium_range_order",), mro.fill_sizes),
            Panel("h", ("medium_range_order",), mro.fill_totals),
        ),
        4, (PAGE / 4, 56.0),
    ),
    PaperFigure(
        "figure_4_largest_clusters", "Fig. 4",
        "The largest cluster on each lattice, near a low-index axis: centres in colour; rods join the nearest sites of "
        "the lattice that was fitted to them.",
        tuple(Panel("abcd"[k], _CLUSTERS, mro.fill_cluster(kind)) for k, kind in enumerate(_LATTICES)),
        4, (PAGE / 4, 52.0),
    ),
    PaperFigure(
        "figure_5_medium_range_order", "Fig. 5",
        "Medium-range order in the sample: (a) all clusters, (b) the directions of their crystal axes, (c) partial "
        "g(r) of the centres with the first peak, (d) distance of nearest sites and distortion of every cluster.",
        (
            Panel("a", _CLUSTERS, mro.fill_map),
            Panel("b", ("medium_range_order",), mro.fill_orientations),
            Panel("c", ("mro_measures",), mro.fill_distances),
            Panel("d", ("medium_range_order",), mro.fill_scales),
        ),
        2, (PAGE / 2, 72.0),
    ),
    PaperFigure(
        "extended_data_2_models", "Extended Data Fig. 2",
        "Several models beside each other: pair distribution functions, structure factors, normalised bond order.",
        (Panel("a", ("models",), order.fill_comparison),), 1, (PAGE, 60.0),
    ),
    PaperFigure(
        "extended_data_3_tilt_series", "Extended Data Fig. 3",
        "All images of the tilt series, with their tilt angles.",
        (Panel("a", ("series",), images.fill_tilt_series),), 1, (PAGE, 150.0),
    ),
    PaperFigure(
        "extended_data_4_validation", "Extended Data Fig. 4a–e",
        "The atoms against a simulated experiment: (a) measured image, (b) the same of the simulated atoms, (c) their "
        "difference, (d) deviations of the atoms found again, (e) R-factor of the measured images against "
        "the simulated ones.",
        (
            Panel("a", ("series", "simulated"), images.fill_measured),
            Panel("b", ("series", "simulated"), images.fill_simulated),
            Panel("c", ("series", "simulated"), images.fill_difference),
            Panel("d", ("validation",), images.fill_deviations),
            Panel("e", ("validation", "series"), images.fill_r_factors),
        ),
        3, (PAGE / 3, 55.0),
    ),
    PaperFigure(
        "extended_data_5_bond_order", "Extended Data Fig. 5",
        "(a) Averaged Q4 and Q6 of all atoms, (b) their normalised order, (c) order across the surface of the crystal "
        "nuclei, (d) the commonest Voronoi indices of the solute centres.",
        (
            Panel("a", ("bond_order",), order.fill_order_map),
            Panel("b", ("bond_order",), order.fill_order_histogram),
            Panel("c", ("interface",), order.fill_interface),
            Panel("d", ("solute_clusters", "voronoi"), order.fill_solute_indices),
        ),
        2, (PAGE / 2, 60.0),
    ),
    PaperFigure(
        "extended_data_6_tolerance", "Extended Data Fig. 6",
        "What the largest distance of a centre from its site changes in the invariant search: (a) clusters, "
        "(b) centres in them.",
        (
            Panel("a", ("tolerances",), mro.fill_tolerances("count", "clusters")),
            Panel("b", ("tolerances",), mro.fill_tolerances("centres", "centres in clusters")),
        ),
        2, (PAGE / 2, 55.0),
    ),
    PaperFigure(
        "extended_data_7_measures", "Extended Data Fig. 7",
        "(a) Lengths and (b) volumes of the clusters; grey: mean and standard deviation; the number: the mean.",
        (
            Panel("a", ("medium_range_order", "mro_measures"), mro.fill_measure("length")),
            Panel("b", ("medium_range_order", "mro_measures"), mro.fill_measure("volume")),
        ),
        2, (PAGE / 2, 60.0),
    ),
    PaperFigure(
        "extended_data_8_icosahedra", "Extended Data Fig. 8",
        "Clusters of five and more solute centres on an icosahedron, for two tolerances: (a) sizes, (b) the largest.",
        (
            Panel("a", ("icosahedra", "icosahedra_loose"), mro.fill_icosahedra),
            Panel("b", ("atoms", "icosahedra_loose"), mro.fill_largest_icosahedron),
        ),
        2, (PAGE / 2, 60.0),
    ),
    PaperFigure(
        "extended_data_9_precision", "Extended Data Fig. 9",
        "What errors of the positions change: (a) the commonest Voronoi indices, (b) what part of the atoms is "
        "ordered, and is so only without (lost) or only with errors (gained). Bars: standard deviation over copies.",
        (
            Panel("a", ("precision_effect",), order.fill_index_errors),
            Panel("b", ("precision_effect",), order.fill_order_errors),
        ),
        2, (PAGE / 2, 60.0),
    ),
)  # fmt: skip
"""In the order of the paper; another one is one entry."""
