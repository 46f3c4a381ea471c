"""Shifts, axis and heights of a film at which its tilts are most coherent: all tilts at once, without a volume."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .film_cells import Cells, Spectra, cell_spectra, frequencies, plan_cells, window
from .frame import Frame

_ITERATIONS = 12
_ENOUGH = 0.01  # pixels: a largest step that ends the search
_LONGEST = 6.0  # pixels: longest step of a shift
_DRIFTING = 0.3
"""Pixels across that tilts may be off for each of drift: simulated films, 40 to 50 Angstrom thick, came out 0.1 to 0.3
off where the drift was 0.4 to 0.7."""
_OVERLAP = 1.4  # variance of the sum of the cells' scores over the sum of their squares: they overlap
_THICK = 0.6
"""Degrees by which the axis may be off where a film is thicker than its cells are wide, by so much: simulated films
with holes, 40 Angstrom thick, showed 0.4 degrees rms at 1.1 times the edge; those below 0.4 times the edge 0.03."""
_TURN = 0.1  # degrees on either side, for the derivative with respect to the axis
_THICKNESSES = 6.0 * 1.25 ** np.arange(19)  # pixels
_THICKEST = 2.0  # edges of a cell: of thicker films the windows tell nothing, and drift takes what tilts do not share
_DRIFTS = np.array([0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0])  # pixels from tilt to tilt


class FilmFit(NamedTuple):
    """Where a film lies in every tilt.

    Attributes
    ----------
    shift : ndarray, shape (tilt, 2), float64
        Pixels along and across the axis.
    uncertainty : ndarray, shape (tilt, 2), float64
        Their standard deviations, but for the film's position.
    information : ndarray, shape (2 tilt, 2 tilt), float64
        Inverse covariance of the shifts along, then across; 0 for the film's position.
    axis, axis_uncertainty : float
        Degrees by which the axis is turned from where the angles have it, positive towards -x.
    slope : float
        The film's plane is z = slope x.
    thickness, drift : float
        Pixels: thickness of the film, and what tilts are still off from one to the next.
    """

    shift: np.ndarray
    uncertainty: np.ndarray
    information: np.ndarray
    axis: float
    axis_uncertainty: float
    slope: float
    thickness: float
    drift: float


class _State(NamedTuple):
    """What is searched, shifts in film coordinates, and what the coherence depends on beside it."""

    shift: np.ndarray  # (tilt, [y, x]) pixels
    axis: float
    slope: float
    cells: Cells
    thickness: float
    drift: float


def shortening(theta: np.ndarray, slope: float) -> np.ndarray:
    """Length across the axis of a film, seen at a tilt: cos(theta) - slope sin(theta), z = slope x being its plane."""
    turn = np.deg2rad(theta)
    return np.cos(turn) - slope * np.sin(turn)


def fit_film(frame: Frame, shift: np.ndarray, *, maximum_axis: float, find_axis: bool) -> FilmFit:
    """Computes: the shifts, the axis and the heights of cells at which all tilts are most coherent.

    Parameters
    ----------
    frame : Frame
        Of the tilts that count.
    shift : ndarray, shape (tilt, 2), float
        Shifts [y, x] in pixels to start from: right to some pixels.
    maximum_axis : float
        Degrees.
    find_axis : bool
        Otherwise the axis stays where the angles have it.

    Returns
    -------
    FilmFit

    Raises
    ------
    InputError
        If no part of the film is seen in three tilts.

    Notes
    -----
    Stretched onto the film, tilt t shows of its Fourier transform F(q, ky, kz) the values at kz = -q tan(theta_t). Two
    tilts show the same wave if these lie closer than the inverse thickness 1/D: for a film of independent
    layers their coherence is the mean over the heights z of cos(2 pi q z d), d = tan(theta_t) - tan(theta_s), here
    times R(z d), what windows of the cell's edge have in common when they lie z d apart. Times the
    signal's part of the power this gives the covariance C of the spectra f of a cell, Gaussian numbers of power 1.
    A shift turns their phases, and the shifts of largest likelihood exp(-f* C^-1 f) follow by Fisher scoring: the
    gradient is 2 Re[(i k f)* (1 - C^-1) f], the expected curvature 2 k k' (C o C^-1 - 1). Waves that no two tilts
    share weigh nothing, whatever their power.

    Every cell has a height; the axis turned by a moves a cell at (u, X) by a (X l - X, u - u / l), l being the
    stretch, beside turning the film. That tilts may lie off one another by a random walk of
    S pixels a step lowers the coherence by exp(-(2 pi q S)^2 |t - s| / 2). D and S are those of largest likelihood, so
    that fine waves count as soon as coarse ones are in place.

    References
    ----------
    R. A. Crowther et al., Proc. R. Soc. Lond. A 317, 319 (1970) (what tilts share); S. M. Kay, Fundamentals of
    Statistical Signal Processing I (1993), ch. 3, 7 (Gaussian likelihood, scoring).
    """
    n, shape = len(frame.theta), (int(frame.images.shape[1]), int(frame.images.shape[2]))
    turn = np.deg2rad(frame.axis)
    y, x = frame.centre
    origin = y * np.cos(turn) - x * np.sin(turn), y * np.sin(turn) + x * np.cos(turn)
    state = _State(np.array(shift), 0.0, 0.0, plan_cells(shape, origin, shortening(frame.theta, 0.0)), 0.0, 2.0)
    for _ in range(_ITERATIONS):
        stretch, lean = film_view(frame.turns, state.axis, state.slope)
        spectra = cell_spectra(
            frame.images, frame.mask, state.cells, shift=state.shift, stretch=stretch, lean=lean,
            axis=frame.axis, centre=frame.centre,
        )  # fmt: skip
        if not (spectra.seen.sum(axis=1) >= 3).any():
            raise InputError(
                f"No {state.cells.edge} x {state.cells.edge} pixels of the film are seen in three tilts (the field has "
                f"{shape[0]} x {shape[1]}); check the mask and maximum_shift, or align it as a particle."
            )
        thickness, drift = _likeliest(spectra, state, lean[:, 1])
        state = state._replace(thickness=thickness, drift=drift)
        information, scores = _normal_equations(spectra, state, frame.turns)
        if not find_axis:
            information[2 * n], information[:, 2 * n], scores[:, 2 * n] = 0.0, 0.0, 0.0
            information[2 * n, 2 * n] = 1.0
        covariance = _covariance_of(information, n)
        step = covariance @ scores.sum(axis=0)
        state, longest = _moved(state, step, stretch, frame.axis, maximum_axis)
        if longest < _ENOUGH:
            break
    turn = np.deg2rad(frame.axis + state.axis)
    found = state.shift @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    # From film to image: the axis is turned too little for along and across to mix.
    scale = np.concatenate([stretch[:, 0, 0], stretch[:, 1, 1]])
    own, others = slice(0, 2 * n), slice(2 * n, None)
    cross = information[own, others]
    alone = information[own, own] - cross @ np.linalg.pinv(information[others, others], hermitian=True) @ cross.T
    # As the model has it, and as the cells agree; the larger.
    spread = covariance @ (_OVERLAP * scores.T @ scores) @ covariance
    deviation = np.sqrt(
        np.max(
            [np.diag(_without_gauge(c[own, own] * np.outer(scale, scale), frame.theta)) for c in (covariance, spread)],
            0,
        )
    )
    thick = _THICK * max(0.0, state.thickness / state.cells.edge - 0.4)
    axis_deviation = float(np.sqrt(max(covariance[2 * n, 2 * n], spread[2 * n, 2 * n]) + thick**2))
    return FilmFit(
        found,
        np.hypot(deviation.reshape(2, n).T, [0.0, _DRIFTING * state.drift]),
        alone / np.outer(scale, scale),
        state.axis,
        axis_deviation if find_axis else 0.0,
        state.slope,
        state.thickness,
        state.drift,
    )


def film_view(turns: np.ndarray, axis: float, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """How tilts show a film: p on it and h above its plane is seen at stretch (p + lean h), along and across.

    Parameters
    ----------
    turns : ndarray, shape (tilt, 3, 3)
        As :class:`~aetdist.align.frame.Frame` has them.
    axis : float
        Degrees by which their axis is turned, positive from image y towards -x.
    slope : float
        The film's plane is z = slope x, x being across.

    Returns
    -------
    stretch : ndarray, shape (tilt, 2, 2), float64
    lean : ndarray, shape (tilt, 2), float64
    """
    g = _turned(turns, axis)
    stretch = g[:, :2, :2] + slope * g[:, :2, 2:] * np.array([0.0, 1.0])
    return stretch, np.linalg.solve(stretch, g[:, :2, 2:])[..., 0]


def _turned(turns: np.ndarray, axis: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(axis)), np.sin(np.deg2rad(axis))
    z = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(z @ turns @ z.T)


def _without_gauge(covariance: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Covariance of shifts along and across, but for the film's position."""
    n, turn = len(theta), np.deg2rad(theta)
    moves = np.zeros((2 * n, 3))
    moves[:n, 0], moves[n:, 1], moves[n:, 2] = 1.0, np.cos(turn), np.sin(turn)
    basis = np.linalg.qr(moves)[0]
    rest = np.eye(2 * n) - basis @ basis.T
    return np.asarray(rest @ covariance @ rest)


def coherence(
    q: np.ndarray, lean: np.ndarray, *, edge: int, thickness: float, drift: float, layers: int = 24
) -> np.ndarray:
    """Coherence of the tilts of a film, shape (q, tilt, tilt).

    Parameters
    ----------
    q : ndarray, shape (q,)
        Cycles per pixel across the axis.
    lean : ndarray, shape (tilt,)
        By how much a height moves across the axis, in film coordinates.
    edge : int
        Of the cells, in pixels.
    thickness, drift : float
        Pixels.
    layers : int
        Heights over which the mean is taken, on either side of the middle.
    """
    apart = np.abs(lean[:, None] - lean)
    rank = np.argsort(np.argsort(lean))
    mean = np.zeros((len(q), *apart.shape))
    for z in thickness * (np.arange(layers) + 0.5) / (2 * layers):
        moved = np.minimum(z * apart / edge, 1.0)
        common = (1.0 - moved) * np.cos(np.pi * moved) + np.sin(np.pi * moved) / np.pi
        mean += common * np.cos(2.0 * np.pi * q[:, None, None] * z * apart) / layers
    steps = np.abs(rank[:, None] - rank)
    return mean * np.exp(-0.5 * (2.0 * np.pi * q[:, None, None] * drift) ** 2 * steps)


def _covariance(shared: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """C of the spectra, shape (ky, q, tilt, tilt): of power 1."""
    full = shared * signal[..., :, None] * signal[..., None, :]
    same = np.arange(signal.shape[-1])
    full[..., same, same] = 1.0
    return full


def _likeliest(spectra: Spectra, state: _State, lean: np.ndarray) -> tuple[float, float]:
    """Thickness and drift of largest likelihood, one after the other; of a part of the frequencies."""
    q = frequencies(state.cells.edge)[1][1::3]
    seen = spectra.seen.sum(axis=1)
    values = np.moveaxis(spectra.values[seen == seen.max()][:, ::4, 1::3], 0, -1)
    signal = np.where(spectra.seen[int(seen.argmax())], spectra.signal[::4, 1::3], 0.0)

    def likelihood(thickness: float, drift: float) -> float:
        c = _covariance(coherence(q, lean, edge=state.cells.edge, thickness=thickness, drift=drift), signal)
        fit = (values.conj() * np.linalg.solve(c, values)).real.sum()
        return float(-fit - values.shape[-1] * np.linalg.slogdet(c)[1].sum())

    thickness, drift = state.thickness, state.drift
    first = thickness == 0.0
    for _ in range(2 if first else 1):
        choices = _THICKNESSES if first else thickness * 1.1 ** np.arange(-2, 3)
        choices = choices[choices <= _THICKEST * state.cells.edge]
        thickness = max(choices, key=lambda d: likelihood(d, drift))
        drift = max(_DRIFTS, key=lambda s: likelihood(thickness, s))
    return float(thickness), float(drift)


def _normal_equations(spectra: Spectra, state: _State, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fisher information and every cell's score: shifts along and across (on the film), axis (degrees), heights."""
    cells, n = state.cells, len(turns)
    stretch, lean = film_view(turns, state.axis, state.slope)
    turning = (_turned(turns, state.axis + _TURN) - _turned(turns, state.axis - _TURN))[:, :2] / (2 * _TURN)
    ky, q = frequencies(cells.edge)
    shared = coherence(q, lean[:, 1], edge=cells.edge, thickness=state.thickness, drift=state.drift)
    # Neighbouring frequencies share what the window blurs; those at q = 0 come twice.
    w = window(cells.edge) ** 2
    weight = np.where(q == 0, 0.5, 1.0) * float(w.sum() ** 2 / (w**2).sum()) / cells.edge**2
    k = 2.0 * np.pi * np.stack(np.broadcast_arrays(ky[:, None], q))
    known: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    size = 2 * n + 1 + len(cells.along)
    total, scores = np.zeros((size, size)), np.zeros((len(cells.along), size))
    for c, (f, seen) in enumerate(zip(spectra.values, spectra.seen, strict=True)):
        if seen.sum() < 3:
            continue
        signal = np.where(seen, spectra.signal, 0.0)
        if seen.tobytes() not in known:
            known[seen.tobytes()] = _weights(_covariance(shared, signal), weight, k)
        inverse, expected = known[seen.tobytes()]
        y = -2.0 * weight[:, None] * np.einsum("aqij,aqj->aqi", inverse, f)
        slope = np.einsum("daq,aqt->dt", k, (np.conj(1j * f) * y).real).reshape(-1)
        # Where a cell holds less than the image does on average, it says less.
        power = float((np.abs(f) ** 2 * signal**2)[:, q > 0].sum() / max((signal**2)[:, q > 0].sum(), 1e-300))
        u, x, h = cells.along[c], cells.across[c], cells.height[c]
        moves = np.zeros((2 * n, size))
        moves[:, : 2 * n] = np.eye(2 * n)
        moved = turning @ np.array([u, x, state.slope * x + h])
        moves[:, 2 * n] = np.linalg.solve(stretch, moved[..., None])[..., 0].T.reshape(-1)
        moves[:, 2 * n + 1 + c] = lean.T.reshape(-1)
        total += power * moves.T @ expected @ moves
        scores[c] = moves.T @ slope
    return total, scores


def _weights(covariance: np.ndarray, weight: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """C^-1, and the expected curvature for shifts along and across, shape (2 tilt, 2 tilt)."""
    inverse = np.linalg.inv(covariance)
    n = covariance.shape[-1]
    curvature = 2.0 * weight[:, None, None] * (inverse * covariance - np.eye(n))
    blocks = np.einsum("daq,eaq,aqij->diej", k, k, curvature, optimize=True)
    return inverse, blocks.reshape(2 * n, 2 * n)


def _covariance_of(information: np.ndarray, n: int) -> np.ndarray:
    """The inverse; the film stays where it is along, across and in height."""
    fixed = np.zeros((3, len(information)))
    fixed[0, :n], fixed[1, n : 2 * n] = 1.0, 1.0
    fixed[2, 2 * n + 1 :] = np.diag(information)[2 * n + 1 :]
    fixed /= np.linalg.norm(fixed, axis=1, keepdims=True)
    size = np.trace(information[: 2 * n, : 2 * n]) / (2 * n)
    return np.asarray(np.linalg.pinv(information + size * fixed.T @ fixed, rcond=1e-10, hermitian=True))


def _moved(
    state: _State, step: np.ndarray, stretch: np.ndarray, axis: float, maximum_axis: float
) -> tuple[_State, float]:
    """The state after a step, not longer than allowed; and the step's largest shift."""
    n = len(stretch)
    shift = np.einsum("tij,jt->ti", stretch, step[: 2 * n].reshape(2, n))
    longest = float(np.abs(shift).max())
    part = min(1.0, _LONGEST / max(longest, 1e-300))
    turn = np.deg2rad(axis)
    to_image = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    cells = state.cells
    height = cells.height + part * step[2 * n + 1 :]
    # What of the heights is a plane goes into the stretch.
    x = cells.across - cells.across.mean()
    slope = float(height @ x / (x @ x)) if (x @ x) > 0 else 0.0
    return (
        state._replace(
            shift=state.shift + part * shift @ to_image,
            axis=float(np.clip(state.axis + part * step[2 * n], -maximum_axis, maximum_axis)),
            slope=state.slope + slope,
            cells=cells._replace(height=height - slope * cells.across),
        ),
        longest,
    )
