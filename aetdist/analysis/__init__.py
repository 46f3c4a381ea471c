"""The order of the atoms: pair distributions, bond order, Voronoi cells, chemical and medium-range order."""
