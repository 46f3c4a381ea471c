"""Medium-range order: clusters of solute centres on the sites of a lattice."""

from .search import find_mro, solute_centers

__all__ = ["find_mro", "solute_centers"]
