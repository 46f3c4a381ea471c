"""How exact the projector is on atoms that played no part in choosing its filter; prints JSON.

    python tests/benchmarks/bench_projector.py

R (eq. 4) of projecting a rendered nanoparticle against the exact projections of its Gaussian atoms, at 30
Euler angles and 0.347 Angstrom a voxel, for atoms of two widths (standard deviation in Angstrom).
"""

from __future__ import annotations

import json

import numpy as np

import aetdist as aet
from aetdist.geometry import centred_coordinates
from aetdist.project.atoms import project_atoms, render_atoms

VOXEL = 0.347


def r_factor(sigma: float) -> float:
    """Mean over the tilts."""
    rng = np.random.default_rng(77)
    angles = np.stack([rng.normal(0, 2, 30), np.linspace(-70, 70, 30), rng.normal(0, 2, 30)], axis=1)
    positions = aet.nanoparticle(22.0, species=("Cu", "Zr"), seed=77)["position"].values
    c = centred_coordinates(96, VOXEL)
    volume = render_atoms(positions, heights=1.0, sigmas=sigma, x=c, y=c, z=c, pixel_size=VOXEL).astype(np.float32)
    exact = project_atoms(positions, angles, heights=1.0, sigmas=sigma, x=c, y=c, pixel_size=VOXEL)
    return float(aet.r_factor(aet.project_volume(volume, angles), exact).mean())


if __name__ == "__main__":
    print(json.dumps({f"R, sigma {sigma} Angstrom": r_factor(sigma) for sigma in (0.4, 0.5)}, indent=1))
