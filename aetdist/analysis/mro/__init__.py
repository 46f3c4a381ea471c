"""Medium-range order: clusters of solute centres on the sites of a lattice."""

from .measures import centre_distances, mro_errors, mro_sizes, tolerance_table, zone_axes
from .search import find_mro, solute_centers
from .sharing import cluster_pairs, representative_pairs, shared_atoms
from .surrogates import mro_significance

__all__ = [
    "centre_distances",
    "cluster_pairs",
    "find_mro",
    "mro_errors",
    "mro_significance",
    "mro_sizes",
    "representative_pairs",
    "shared_atoms",
    "solute_centers",
    "tolerance_table",
    "zone_axes",
]
