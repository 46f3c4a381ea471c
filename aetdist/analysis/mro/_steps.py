"""The steps of the published search from site to site of a lattice."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.spatial import cKDTree

from .lattices import make_lattice


@cache
def make_steps(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Where each step of the published walk leads.

    Parameters
    ----------
    name : str
        Of a lattice.

    Returns
    -------
    steps : ndarray, shape (m, n), int32
        State that each of the n steps leads to from each of m states; -1: out of reach. A walk starts in state 0.
    stands : ndarray, shape (m,), int32
        Number of the site of each state.

    Notes
    -----
    Yang et al. keep a site as how often each vector to a neighbour of the origin is taken. On hcp the vectors are
    added in a fixed order, those that go up, those that go down, those in the plane, and y of every other vector
    that leaves the plane is turned over. One more of a vector turns the later ones over: the step leads to another
    site of the lattice, which need not be a neighbour. A state is the site and for each of the six vectors that
    leave the plane whether its number is odd. On the other lattices a step leads to a neighbour, and the site is
    the state.
    """
    lattice = make_lattice(name)
    if name != "hcp":
        return lattice.neighbours, np.arange(len(lattice.sites), dtype=np.int32)
    height, short = np.sqrt(2 / 3), 1 / np.sqrt(12)
    x, y, z = np.array(
        [(a, b, c) for c in (height, -height) for a, b in ((0.5, short), (-0.5, short), (0, -2 * short))]
    ).T
    states = np.arange(64)
    odd = states[:, None] >> np.arange(6) & 1
    y_of = (np.where((np.cumsum(odd, axis=1) - odd) % 2, -y, y) * odd).sum(axis=1)
    after = states[:, None] ^ 1 << np.arange(6)
    leaving = np.stack(np.broadcast_arrays(x, y_of[after] - y_of[:, None], z), axis=-1)
    around = lattice.sites[lattice.neighbours[0]]
    within = np.broadcast_to(around[np.abs(around[:, 2]) < 1e-6], (64, 6, 3))
    moves = np.concatenate([leaving, within], axis=1)
    after = np.concatenate([after, np.broadcast_to(states[:, None], (64, 6))], axis=1)
    distinct, number = np.unique(moves.reshape(-1, 3).round(6), axis=0, return_inverse=True)
    distance, target = cKDTree(lattice.sites).query(lattice.sites[:, None] + distinct)
    target = np.where(distance < 1e-3, target, -1)[:, number.reshape(64, 12)]
    steps = np.where(target < 0, -1, target * 64 + after).astype(np.int32).reshape(-1, 12)
    return steps, np.repeat(np.arange(len(lattice.sites), dtype=np.int32), 64)
