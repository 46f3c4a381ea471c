"""Blocks of atoms with a halo: a block owns the atoms of its core and sees all within the halo around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np

from ._kernels import extent_of, within_box
from .windows import current_client

ATOMS_PER_BLOCK = 10_000
"""A block of a glass and 4 Angstrom around it then is a cube of 55 Angstrom, a third of it halo; some 0.1 s of work."""

_in_task = ContextVar("in_task", default=False)


@contextmanager
def blocks_in_turn() -> Iterator[None]:
    """Inside, blocks are worked off one after the other: a task that waits for tasks could wait for ever."""
    token = _in_task.set(True)
    try:
        yield
    finally:
        _in_task.reset(token)


@dataclass(frozen=True)
class AtomBlock:
    """What one task owns and sees.

    Attributes
    ----------
    members : ndarray, shape (m,), int64
        Numbers of the atoms that it sees, rising: whatever is summed over them is summed in the same order in every
        block.
    core : ndarray, shape (m,), bool
        True for those that it owns; every atom is owned by one block.
    """

    members: np.ndarray
    core: np.ndarray


def atom_blocks(positions: np.ndarray, halo: float, *, largest: int = ATOMS_PER_BLOCK) -> list[AtomBlock]:
    """Cut atoms into blocks of nearly equal size: halved again and again across their longest side.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), float64
        Positions in Angstrom.
    halo : float
        How far beyond its own atoms a block sees, in Angstrom.
    largest : int
        Atoms that a block owns at most.

    Returns
    -------
    list of AtomBlock
        In an order that depends on the positions alone; empty where there are no atoms.
    """
    positions, every = np.ascontiguousarray(positions, dtype=np.float64), np.arange(len(positions))
    parts, blocks = [(every, every)] if len(positions) else [], []
    mine = np.zeros(len(positions), bool)
    while parts:
        part, near = parts.pop()
        # What a half sees its whole sees too: only that is searched.
        low, high = extent_of(positions, part)
        near = within_box(positions, near, low - halo, high + halo)
        if len(part) > largest:
            axis = int(np.argmax(high - low))
            half = len(part) // 2
            part = part[np.argpartition(positions[part, axis], half)]
            parts += [(part[half:], near), (part[:half], near)]
        else:
            mine[part] = True
            blocks.append(AtomBlock(near, mine[near]))
            mine[part] = False
    return blocks


def map_blocks(
    function: Callable[..., Any], blocks: Sequence[AtomBlock], *columns: np.ndarray, **settings: Any
) -> list[Any]:
    """Computes: a function of every block, on the current Dask client, else on threads.

    Parameters
    ----------
    function : callable
        Called as ``function(core, *columns of the block's members, **settings)``.
    blocks : sequence of AtomBlock
        From :func:`atom_blocks`.
    *columns : ndarray, shape (n, ...)
        What is known of every atom, the positions first.
    **settings
        Small values, the same for every block.

    Returns
    -------
    list
        What the function returned, block by block.
    """
    if len(blocks) == 1 or _in_task.get():
        return [_of_block(function, block, columns, settings) for block in blocks]
    client = current_client()
    if client is None:
        # Threads see the columns; each copies only what its block needs, when its turn comes.
        tasks = [dask.delayed(_of_block, pure=False, traverse=False)(function, b, columns, settings) for b in blocks]
        return list(dask.compute(*tasks, scheduler="threads"))
    futures = [
        client.submit(function, b.core, *(column[b.members] for column in columns), pure=False, **settings)
        for b in blocks
    ]
    return list(client.gather(futures))


def _of_block(
    function: Callable[..., Any], block: AtomBlock, columns: Sequence[np.ndarray], settings: dict[str, Any]
) -> Any:
    """A function of a block."""
    return function(block.core, *(column[block.members] for column in columns), **settings)


def gather_owned(blocks: Sequence[AtomBlock], results: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Per-atom results of the blocks' own atoms, put where the atoms belong.

    Parameters
    ----------
    blocks : sequence of AtomBlock
        From :func:`atom_blocks`.
    results : sequence of ndarray, shape (owned, ...)
        One for each block, a row for each atom that it owns.
    n : int
        Number of atoms, 1 or more.

    Returns
    -------
    ndarray, shape (n, ...)
        A row for each atom.
    """
    whole = np.empty((n, *results[0].shape[1:]), results[0].dtype)
    for block, part in zip(blocks, results, strict=True):
        whole[block.members[block.core]] = part
    return whole
