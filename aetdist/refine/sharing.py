"""Whether atoms of one type share height and width, or each has its own."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

import numpy as np

from .descent import Free, conjugate_gradients
from .tilts import Model, Series

log = logging.getLogger(__name__)

Choice = Literal["auto", "type", "atom"]
_ITERATIONS = 6  # that each freedom is given before it is judged


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
    *,
    anchor: np.ndarray,
    reach: float,
    prior: float,
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
    anchor, reach, prior
        As in `conjugate_gradients`.

    Notes
    -----
    Akaike's criterion: least sum w r^2 + 2 p, p the number of heights and widths.
    """
    n = len(typed.heights)
    allowed = [
        Sharing(own_heights, own_widths)
        for own_heights, own_widths in ((False, False), (True, False), (True, True), (False, True))
        if heights in ("auto", "atom" if own_heights else "type")
        and widths in ("auto", "atom" if own_widths else "type")
        and not (own_widths and not own_heights and heights == "auto")
    ]
    model, judged = typed, []
    for sharing in allowed:
        descent = conjugate_gradients(
            images, model, sharing.free(n), _ITERATIONS, anchor=anchor, reach=reach, prior=prior
        )
        model = descent.model
        numbers = (n if sharing.own_heights else n_types) + (n if sharing.own_widths else n_types)
        judged.append((float(descent.misfit[-1]) + 2.0 * numbers, sharing, model))
        log.info("%s: %.1f", sharing, judged[-1][0])
    _, sharing, model = min(judged, key=lambda found: found[0])
    return sharing, model
