"""Whether atoms of one type share height and width, or each has its own."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

import numpy as np

from .descent import Bounds, Free, conjugate_gradients
from .tilts import Model, Series

log = logging.getLogger(__name__)

Choice = Literal["auto", "type", "atom"]
_ITERATIONS = 6  # that each freedom is given before it is judged
_WHOSE = {False: "per type", True: "per atom"}


class Sharing(NamedTuple):
    """Which numbers every atom has for itself."""

    own_heights: bool
    own_widths: bool

    def free(self, n: int) -> Free:
        """What the descent of n atoms may change."""
        return Free(True, np.arange(n) if self.own_heights else None, np.arange(n) if self.own_widths else None)

    def applied(self, model: Model, typed: Model) -> Model:
        """The atoms with what they share from `typed`, and what each has for itself from `model`."""
        if self.own_heights and self.own_widths:
            return model
        if self.own_heights:
            return Model(model.positions, model.heights * (model.sigmas / typed.sigmas) ** 3, typed.sigmas)
        if self.own_widths:
            return Model(model.positions, typed.heights, model.sigmas)
        return typed


def choose_sharing(
    images: Series,
    typed: Model,
    n_types: int,
    heights: Choice,
    widths: Choice,
    bounds: Bounds,
) -> tuple[Sharing, Model]:
    """Computes: which freedom explains more than it costs, and the atoms with it.

    Parameters
    ----------
    images : Series
        Weighted by the noise, so that sum w r^2 counts independent pixels.
    typed : Model
        One height and one width for each type.
    n_types : int
    heights, widths : {"auto", "type", "atom"}
    bounds : Bounds

    Notes
    -----
    Akaike's criterion: least sum w r^2 + 2 p, p the number of heights and widths.
    """
    n = len(typed.heights)
    allowed = [
        Sharing(own_heights, own_widths)
        for own_heights, own_widths in ((False, False), (True, False), (False, True), (True, True))
        if heights in ("auto", "atom" if own_heights else "type")
        and widths in ("auto", "atom" if own_widths else "type")
        and (own_heights or not own_widths or heights == "type")
    ]
    best, model, least = allowed[0], typed, np.inf
    for sharing in allowed:
        descent = conjugate_gradients(images, model, sharing.free(n), _ITERATIONS, bounds)
        numbers = sum(n if own else n_types for own in sharing)
        criterion = float(descent.misfit[-1]) + 2.0 * numbers
        log.info("one height %s, one width %s: Akaike's criterion %.0f", *map(_WHOSE.get, sharing), criterion)
        if criterion >= least:  # more freedom would cost still more
            break
        best, model, least = sharing, descent.model, criterion
    return best, model
