"""The rotation and shift that lay one set of points over another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from ..errors import InputError
from .pairs import as_points, mutual_nearest

# A patch is large enough that its displacement stands out among the chance coincidences of a glass,
# and small enough that a rotation of 5 degrees moves its rim by less than the bins of the vote.
PATCH_RADIUS = 11.0  # Angstrom
VOTE_BIN = 0.5  # Angstrom
MAX_PATCHES = 24


@dataclass(frozen=True, eq=False)
class RigidMotion:
    """``moved = rotation @ position + shift``.

    Parameters
    ----------
    rotation : ndarray, shape (3, 3), float64
        Proper rotation of vectors (x, y, z).
    shift : ndarray, shape (3,), float64
        Shift after the rotation about the origin, in the unit of the positions.
    """

    rotation: np.ndarray
    shift: np.ndarray

    @classmethod
    def identity(cls) -> RigidMotion:
        """The motion that moves nothing."""
        return cls(np.eye(3), np.zeros(3))

    def apply(self, points: np.ndarray) -> np.ndarray:
        """`points` (n, 3), moved; float64, the same unit."""
        return np.asarray(points, dtype=np.float64) @ self.rotation.T + self.shift

    @property
    def angle(self) -> float:
        """Angle of the rotation in degrees, 0 to 180."""
        sine = np.linalg.norm(self.rotation - self.rotation.T) / np.sqrt(8.0)
        return float(np.rad2deg(np.arctan2(sine, (np.trace(self.rotation) - 1) / 2)))


def fit_rigid(source: np.ndarray, target: np.ndarray) -> RigidMotion:
    """The rigid motion with the least squared distance between paired points (Kabsch).

    Parameters
    ----------
    source, target : array_like, shape (n, 3), float
        Paired positions, n >= 3 and not all on one line.

    Returns
    -------
    RigidMotion
        Minimises sum |rotation @ source + shift - target|^2 over proper rotations.

    Raises
    ------
    InputError
        If the sets differ in number or hold fewer than three points.

    References
    ----------
    W. Kabsch, Acta Cryst. A 32, 922 (1976).
    """
    source, target = as_points(source, "source"), as_points(target, "target")
    if source.shape != target.shape or len(source) < 3:
        raise InputError(
            f"{len(source)} source and {len(target)} target points came; a rigid motion needs three pairs or more."
        )
    mean_source, mean_target = source.mean(axis=0), target.mean(axis=0)
    u, _, vt = np.linalg.svd((target - mean_target).T @ (source - mean_source))
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return RigidMotion(rotation, mean_target - rotation @ mean_source)


def register_rigid(
    source: np.ndarray, target: np.ndarray, *, tolerance: float = 0.75, max_shift: float = 8.0, iterations: int = 50
) -> RigidMotion:
    """Lay `source` over `target`: two tracings of one sample, a few degrees and Angstrom apart.

    Parameters
    ----------
    source, target : array_like, shape (n, 3) and (m, 3), float
        Positions in Angstrom; not paired, and some of either may lack a partner.
    tolerance : float
        Largest distance of the pairs that the last steps fit, in Angstrom.
    max_shift : float
        Largest displacement of any part of the sample that is searched, in Angstrom, once the
        centres of mass have been considered.
    iterations : int
        At most this many closest-pair steps per start.

    Returns
    -------
    RigidMotion
        Takes `source` to `target`. The identity where fewer than three pairs can be made.

    Raises
    ------
    InputError
        If positions are not finite triples.

    Notes
    -----
    Closest pairs alone stop at the first wrong neighbour once a displacement reaches half an atomic
    distance. Patches of 11 Angstrom therefore vote first: inside a patch a few degrees of rotation move
    atoms little, so the differences between all its atoms and all target atoms within `max_shift` pile up
    at the patch's displacement. A rigid motion through the patches' displacements, fitted while leaving
    out the worst, starts the iteration of mutual nearest pairs and :func:`fit_rigid`. Identity and the
    difference of the centres of mass are tried as starts too, and the end with most pairs wins.
    """
    source, target = as_points(source, "source"), as_points(target, "target")
    if len(source) < 3 or len(target) < 3:
        return RigidMotion.identity()
    centres = RigidMotion(np.eye(3), target.mean(axis=0) - source.mean(axis=0))
    starts = [RigidMotion.identity(), centres]
    starts += [m for s in tuple(starts) if (m := _vote(source, target, s, max_shift)) is not None]
    best, best_score = RigidMotion.identity(), (-1, 0.0)
    for start in starts:
        motion = _iterate_pairs(source, target, start, tolerance, iterations)
        _, distance = mutual_nearest(motion.apply(source), target, tolerance)
        score = (len(distance), -float(np.sum(distance**2)))
        if score > best_score:
            best, best_score = motion, score
    return best


def _iterate_pairs(
    source: np.ndarray, target: np.ndarray, motion: RigidMotion, tolerance: float, iterations: int
) -> RigidMotion:
    """Mutual nearest pairs and Kabsch in turn, the radius shrinking to the tolerance."""
    radius = max(2.0, tolerance)
    tree = cKDTree(target)
    for _ in range(iterations):
        moved = motion.apply(source)
        to_source = cKDTree(moved).query(target)[1]
        distance, to_target = tree.query(moved)
        i = np.flatnonzero((to_source[to_target] == np.arange(len(moved))) & (distance <= radius))
        if len(i) < 3:
            return motion
        refined = fit_rigid(source[i], target[to_target[i]])
        step = float(np.linalg.norm(refined.apply(source) - moved, axis=1).max())
        motion = refined
        if radius <= tolerance and step < 1e-9:
            break
        radius = max(tolerance, radius * 0.8)
    return motion


def _vote(source: np.ndarray, target: np.ndarray, start: RigidMotion, max_shift: float) -> RigidMotion | None:
    """A rigid motion through the displacements that patches of the source vote for; None where nothing is near."""
    moved = start.apply(source)
    tree_source, tree_target = cKDTree(moved), cKDTree(target)
    edges = np.arange(-max_shift, max_shift + VOTE_BIN, VOTE_BIN)
    centres, shifts = [], []
    for centre in _patch_centres(moved, tree_source):
        patch = moved[tree_source.query_ball_point(centre, PATCH_RADIUS)]
        near = tree_target.query_ball_point(patch, max_shift)
        differences = np.concatenate([target[j] - p for p, j in zip(patch, near, strict=True)])
        if len(differences) == 0:
            continue
        votes, _ = np.histogramdd(differences, bins=(edges,) * 3)
        peak = np.unravel_index(np.argmax(gaussian_filter(votes, 1.0, mode="constant")), votes.shape)
        shift = edges[list(peak)] + VOTE_BIN / 2
        for _ in range(3):
            inside = np.linalg.norm(differences - shift, axis=1) < 1.5 * VOTE_BIN
            if inside.any():
                shift = differences[inside].mean(axis=0)
        centres.append(centre)
        shifts.append(shift)
    if not shifts:
        return None
    points, displacement = np.array(centres), np.array(shifts)
    if len(points) < 3:
        return RigidMotion(start.rotation, start.shift + np.median(displacement, axis=0))
    keep = np.ones(len(points), dtype=bool)
    for _ in range(10):
        motion = fit_rigid(points[keep], points[keep] + displacement[keep])
        residual = np.linalg.norm(motion.apply(points) - points - displacement, axis=1)
        kept = residual <= max(2 * VOTE_BIN, 2.0 * float(np.median(residual)))
        if kept.sum() < 3 or np.array_equal(keep, kept):
            break
        keep = kept
    return RigidMotion(motion.rotation @ start.rotation, motion.rotation @ start.shift + motion.shift)


def _patch_centres(points: np.ndarray, tree: cKDTree) -> np.ndarray:
    """At most MAX_PATCHES points, far from each other, of those with many others around them."""
    crowd = tree.query_ball_point(points, PATCH_RADIUS, return_length=True)
    points = points[crowd >= np.median(crowd)]
    chosen = [int(np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(MAX_PATCHES, len(points)):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(distance)))
    return points[chosen]
