"""Atoms refined against the images themselves: positions, heights, widths; curated, with error bars."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr

from ..errors import InputError
from ..progress import report
from ..schema import ATOMS, with_units
from .curation import Curated, curate_atoms
from .descent import Free, conjugate_gradients, steepest_descent
from .edits import Edit, read_edits
from .imaging import fit_types
from .inputs import beside_the_atoms, checked_atoms, checked_series, require_measured
from .motion import Tilts
from .results import as_dataset, difference_map, differences, origin_of, r_factor, with_edits
from .series import Series
from .sharing import Sharing, choose_sharing, spread_about, spread_of
from .tails import Tails
from .tilts import Model
from .uncertainty import position_error

FIRST_SIGMA = 0.55  # Angstrom: width that the first fit of the types begins with
_FIRST_STEPS = 8  # of that fit
_ROUNDS = 4  # in which positions alternate with what all atoms of a type share
_CHOICES = {
    "heights": ("auto", "type", "atom"),
    "widths": ("auto", "type", "atom"),
    "solver": ("conjugate_gradients", "published"),
    "weights": ("noise", "uniform"),
}
_OWN_HEIGHTS = 6  # iterations that give every atom its own height, for its type and its probability


def refine_atoms(
    tilt_series: xr.Dataset,
    atoms: xr.Dataset,
    *,
    volume: xr.Dataset | None = None,
    iterations: int = 20,
    heights: Literal["auto", "type", "atom"] = "auto",
    widths: Literal["auto", "type", "atom"] = "auto",
    solver: Literal["conjugate_gradients", "published"] = "conjugate_gradients",
    weights: Literal["noise", "uniform"] = "noise",
    curate: bool = True,
    curation_rounds: int = 8,
    refine_tilts: bool = True,
    tails: bool = True,
    background: float = 4.0,
    prior: float = 0.15,
    minimum_distance: float = 1.4,
    maximum_move: float = 1.0,
    edits: str | Path | Sequence[Edit] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Computes: the atoms whose projections match a tilt series best, and how sure each is.

    Parameters
    ----------
    tilt_series : xarray.Dataset
        TILT_SERIES: aligned images, not denoised (denoised ones give worse positions).
    atoms : xarray.Dataset
        ATOMS to begin with; `type` 1..k, one type without.
    volume : xarray.Dataset, optional
        VOLUME that the atoms were traced in. What it holds outside its `support` is taken off the images, and pixels
        that see mostly that do not count.
    iterations : int
        Of the last refinement, after curation; at most so many. A quarter of them ends when the misfit falls by less
        than 1e-4 of itself (not with "published").
    heights, widths : {"auto", "type", "atom"}
        One height, one width for all atoms of a type, or for each atom; "auto" takes the latter where
        it predicts tilts better that it was not fitted to (every fourth in turn). What each atom has for itself is
        expected about the mean of its type, as far from it as atoms of a type vary beyond the noise.
    solver : {"conjugate_gradients", "published"}
        All atoms together, preconditioned; or the paper's plain gradient descent with a fixed step.
    weights : {"noise", "uniform"}
        Pixels weigh one over the variance of the noise, which is measured from the residuals; or alike.
    curate : bool
        Add, delete, merge and retype atoms where the images ask for it.
    curation_rounds : int
        At most so many.
    refine_tilts : bool
        Refine rotation, shift and brightness of every tilt too. The object as a whole does not move.
    tails : bool
        Fit how much of every atom's intensity the probe spreads wider than its Gaussian (twice and four times).
    background : float
        Angstrom. What is smoother than that and not predicted is taken off the images; 0 takes nothing off.
    prior : float
        Angstrom, standard deviation: how far atoms are expected from where they were traced. It counts only as far as
        the model does not explain the images down to white noise.
    minimum_distance : float
        Angstrom. Atoms are not added nearer to each other than two thirds of it.
    maximum_move : float
        Angstrom; no atom moves further from where it was traced or added.
    edits : str, Path or sequence of Edit, optional
        Changes by hand, a CSV file (`read_edits`) or what it holds; made after curation, the last refinement follows.
    seed : int
        Of the noise that is sent through the equations of the error bars.

    Returns
    -------
    xarray.Dataset
        ATOMS: `position`, `type`, `intensity` (height H of the Gaussian), `b_factor` (Angstrom^2), `position_sigma`
        (atom, axis), `probability`, `type_probability`, `unresolved`, `origin`; `r_factor` (iteration, tilt) and
        `round_r` (iteration,), first one before anything was refined; `difference_before` and `difference_after`
        (map_y, map_x); `angles` (tilt, euler), `shift` (tilt, [y, x]) in pixels and `gain` (tilt,), what was refined
        of the tilts. Attributes: `R` (eq. 4), `R1`, `type_heights`, `type_sigmas` (Angstrom), `heights` and `widths`
        ("type" or "atom", what was chosen), `tails` (part of an atom's intensity in each), `tail_blurs` (pixels),
        `cramer_rao` (Angstrom), `crowding`, `tilt_disagreement`, `n_added`, `n_deleted`, `n_merged`, `n_retyped`;
        `edits` (rows), if there were any.

    Raises
    ------
    InputError
        If an option is unknown or out of range, atoms or series cannot be used, pixels inside the mask are no numbers,
        atoms lie outside the volume, voxels and pixels differ in size, or an edit finds no atom.

    Notes
    -----
    Minimises sum w (I_model - I)^2 over all measured pixels of all tilts (eq. 1 with the projections of eq. 6 [1]_);
    an atom is H exp(-r^2 / (2 sigma^2)), B = 8 pi^2 sigma^2. Heights and widths of the types, brightness and motion of
    the tilts, and the noise are fitted in turn with the positions.

    An atom is added where one explains what is left of the images (maxima of their filtered backprojection), and
    deleted where its own height, fitted with all others, falls below half that of the lowest type.

    Errors: see :func:`~aetdist.refine.uncertainty.position_error` and
    :func:`~aetdist.refine.uncertainty.probabilities`. `unresolved` marks atoms that are of no type with a
    probability of 0.8.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021), Methods.
    """
    check_options(
        {"heights": heights, "widths": widths, "solver": solver, "weights": weights},
        {"iterations": iterations, "curation_rounds": curation_rounds, "seed": seed},
        {
            "minimum_distance": minimum_distance,
            "maximum_move": maximum_move,
            "prior": prior,
            "background": background,
        },
    )
    changes = read_edits(edits) if isinstance(edits, (str, Path)) else tuple(edits or ())
    series = checked_series(tilt_series)
    positions, types = checked_atoms(atoms, volume, series)
    steps = 2 + curate + _ROUNDS
    report(0, steps, "refinement")
    images = Series.of(series, *beside_the_atoms(volume, series))
    require_measured(images)
    n = len(positions)
    model, _ = fit_types(images, Model(positions, np.ones(n), np.full(n, FIRST_SIGMA)), types, rounds=_FIRST_STEPS)
    r_factors = [r_factor(images, model)]
    before = difference_map(images, model)
    tilts = Tilts(series, move=refine_tilts, background=background, noise=weights == "noise")
    images = tilts.settled(images, model)
    found = Curated.start(model, types, origin_of(atoms))
    report(1, steps, "refinement")
    if curate:
        images, found = curate_atoms(
            images,
            found,
            tilts,
            rounds=curation_rounds,
            minimum_distance=minimum_distance,
            reach=maximum_move,
            prior=prior,
        )
        r_factors.append(r_factor(images, found.model))
        report(2, steps, "refinement")
    if changes:
        found = with_edits(found, changes)
    n = len(found.types)
    shape = Tails.none(float(np.median(found.model.sigmas)) / float(series["pixel_size"])) if tails else None
    typed, shape = fit_types(images, found.model, found.types, rounds=_FIRST_STEPS, tails=shape)
    images = tilts.settled(images, typed, shape)
    sharing, model = choose_sharing(
        images, typed, found.types, heights, widths, tilts.bounds(found.anchor, maximum_move, prior)
    )
    found = found.moved(model)
    variance: np.ndarray | None = None
    descend = conjugate_gradients if solver == "conjugate_gradients" else steepest_descent
    for number, part in enumerate(np.array_split(np.arange(iterations), _ROUNDS), start=1):
        typed, shape = fit_types(images, found.model, found.types, widths=not sharing.own_widths, rounds=2, tails=shape)
        model = sharing.applied(found.model, typed)
        images = tilts.settled(images, model, shape)
        bounds = tilts.bounds(found.anchor, maximum_move, prior)
        if tilts.explained:
            variance = spread_of(images, model, found.types, sharing, variance)
            bounds = bounds._replace(spread=spread_about(model, found.types, variance))
        found = found.moved(descend(images, model, sharing.free(n), len(part), bounds).model)
        r_factors.append(r_factor(images, found.model, shape))
        report(1 + curate + number, steps, "refinement")
    images = tilts.settled(images, found.model, shape)
    typed, _ = fit_types(images, found.model, found.types)
    own = conjugate_gradients(
        images, Sharing(True, False).applied(found.model, typed), Free(False, np.arange(n), None), _OWN_HEIGHTS
    ).model.heights
    found = found.retyped(own)
    typed, _ = fit_types(images, found.model, found.types)
    found = found.moved(sharing.applied(found.model, typed))
    r_factors.append(r_factor(images, found.model, shape))
    frame = tilts.frame_variance(found.model.positions, float(series["pixel_size"]))
    error = position_error(images, found.model, sharing.free(n), seed, frame)
    report(steps, steps, "refinement")
    result = as_dataset(found, own, error, np.array(r_factors), images, shape, sharing)
    beside = differences(before, difference_map(images, found.model, shape), series) | tilts.found()
    noise = {f"noise_{name}": float(value) for name, value in tilts.noise._asdict().items()}
    return with_units(result.assign(beside).assign_coords(tilt=series["tilt"].values).assign_attrs(noise), ATOMS)


def check_options(choices: dict[str, str], numbers: dict[str, int], lengths: dict[str, float]) -> None:
    """Refuse words and numbers that no refinement can use.

    Parameters
    ----------
    choices : dict
        ``heights``, ``widths``, ``solver``, ``weights``.
    numbers : dict
        Whole numbers of 1 or more; ``seed`` may be 0.
    lengths : dict
        Angstrom, above 0; ``background`` may be 0.

    Raises
    ------
    InputError
    """
    for name, word in choices.items():
        if word not in _CHOICES[name]:
            raise InputError(f"{name} came as {word!r}; needed is one of {', '.join(_CHOICES[name])}.")
    for name, number in numbers.items():
        least = 0 if name == "seed" else 1
        if not (isinstance(number, (Integral, float)) and float(number).is_integer() and number >= least):
            raise InputError(f"{name} came as {number}; needed is a whole number of {least} or more.")
    for name, length in lengths.items():
        zero = name == "background"
        if not (isinstance(length, Real) and (0 < length < np.inf or (zero and length == 0))):
            raise InputError(
                f"{name} came as {length}; needed is a length in Angstrom {'of' if zero else 'above'} 0"
                f"{' or more' if zero else ''}."
            )
