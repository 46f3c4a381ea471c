"""A and A^T: projections of volumes and of atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from ..geometry import ParallelGeometry
from .operator import ParallelProjector, empty_volume

if TYPE_CHECKING:
    from .fourier import FourierProjector

__all__ = ["PROJECTORS", "ParallelProjector", "empty_volume", "make_projector"]

PROJECTORS = ("shear", "fourier")


def make_projector(
    name: str, geometry: ParallelGeometry, threads: int = 1, memory: int | None = None
) -> ParallelProjector | FourierProjector:
    """Make the projector of a name.

    Parameters
    ----------
    name : {"shear", "fourier"}
        Planes of the volume are sheared and summed, or slices of its Fourier transform are taken.
    geometry : ParallelGeometry
    threads : int
        Kernel threads; the result does not depend on them.
    memory : int, optional
        Bytes that the spectrum of "fourier" may take; without it, what the machine has free.

    Raises
    ------
    InputError
        If there is none of that name.
    CapacityError
        If the spectrum does not fit.
    """
    if name not in PROJECTORS:
        raise InputError(f"Projector {name!r} is unknown; choose one of {', '.join(PROJECTORS)}.")
    if name == "fourier":
        from .fourier import FourierProjector  # here, as FFTs are only loaded where they are asked for

        return FourierProjector(geometry, threads, memory=memory)
    return ParallelProjector(geometry, threads)
