"""Voronoi cells by a plain loop over Qhull: one run for all atoms, and one more for each cell that is built again."""

from __future__ import annotations

import numpy as np
from scipy.spatial import Voronoi


def area(corners: np.ndarray) -> float:
    """Area of a flat polygon."""
    arms = corners[1:] - corners[0]
    return 0.5 * float(np.linalg.norm(np.cross(arms[:-1], arms[1:]).sum(axis=0)))


def qhull_faces(points: np.ndarray) -> list[dict[int, np.ndarray] | None]:
    """Corners of the faces of every cell by neighbour; None where unbounded."""
    diagram = Voronoi(points)
    faces: list = [{} for _ in points]
    for (a, b), corners in zip(diagram.ridge_points, diagram.ridge_vertices, strict=True):
        faces[a][int(b)] = faces[b][int(a)] = None if -1 in corners else diagram.vertices[corners]
    return [None if not cell or any(c is None for c in cell.values()) else cell for cell in faces]


def qhull_indices(
    points: np.ndarray, *, smallest: float = 0.01, wanted: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, list[dict[int, tuple[int, float]]]]:
    """Index (-1: none), volume and faces (edges and area by neighbour) of the recomputed cells of the wanted atoms."""
    wanted = np.arange(len(points)) if wanted is None else wanted
    index, volume = np.full((len(wanted), 4), -1), np.full(len(wanted), np.nan)
    found: list[dict[int, tuple[int, float]]] = [{} for _ in wanted]
    cells = qhull_faces(points)
    for row, i in enumerate(wanted):
        faces = cells[i]
        if faces is None:
            continue
        areas = {j: area(corners) for j, corners in faces.items()}
        volume[row] = sum(a * np.linalg.norm(points[j] - points[i]) / 6 for j, a in areas.items())
        kept = [j for j, a in areas.items() if a >= smallest * sum(areas.values())]
        again = qhull_faces(points[[i, *kept]])[0]
        if again is not None:
            edges = [len(corners) for corners in again.values()]
            index[row] = [edges.count(e) for e in (3, 4, 5, 6)]
            found[row] = {kept[j - 1]: (len(corners), area(corners)) for j, corners in again.items()}
    return index, volume, found
