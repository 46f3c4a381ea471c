"""Atomic electron tomography, distributed: the public names in the order of the experiment."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .acquisition import import_acquisition
    from .align import align_tilt_series, apply_alignment
    from .analysis.coordination import coordination, warren_cowley
    from .analysis.voronoi import voronoi_indices, voronoi_statistics
    from .angles import apply_refinement, refine_angles
    from .classify import classify_atoms
    from .cluster import connect
    from .io import Store, read_atoms, write_xyz
    from .metrics import compare_atoms, normalised_rmse, r1_factor, r_factor
    from .preprocess import (
        calibrate_scan,
        correct_frames,
        denoise,
        preprocess_acquisition,
        register_frames,
        subtract_background,
    )
    from .projections import project_volume
    from .reconstruct import reconstruct_resire, reconstruct_scan, reconstruct_slabs
    from .refine import refine_atoms
    from .refinement import reconstruct_refined
    from .simulate import amorphous_film, nanoparticle, simulate_acquisition, simulate_tilt_series
    from .tilt_series import import_tilt_series
    from .trace import trace_atoms

#: Where each public name lives; imported when it is asked for, so that `aetdist --help` is quick.
_HOMES = {
    "connect": "cluster",
    "Store": "io",
    "amorphous_film": "simulate",
    "nanoparticle": "simulate",
    "simulate_tilt_series": "simulate",
    "simulate_acquisition": "simulate",
    "import_acquisition": "acquisition",
    "import_tilt_series": "tilt_series",
    "register_frames": "preprocess",
    "calibrate_scan": "preprocess",
    "denoise": "preprocess",
    "subtract_background": "preprocess",
    "preprocess_acquisition": "preprocess",
    "correct_frames": "preprocess",
    "align_tilt_series": "align",
    "apply_alignment": "align",
    "refine_angles": "angles",
    "apply_refinement": "angles",
    "reconstruct_refined": "refinement",
    "project_volume": "projections",
    "reconstruct_resire": "reconstruct",
    "reconstruct_scan": "reconstruct",
    "reconstruct_slabs": "reconstruct",
    "trace_atoms": "trace",
    "classify_atoms": "classify",
    "refine_atoms": "refine",
    "compare_atoms": "metrics",
    "r_factor": "metrics",
    "r1_factor": "metrics",
    "normalised_rmse": "metrics",
    "coordination": "analysis.coordination",
    "warren_cowley": "analysis.coordination",
    "voronoi_indices": "analysis.voronoi",
    "voronoi_statistics": "analysis.voronoi",
    "read_atoms": "io",
    "write_xyz": "io",
}

__all__ = [
    "Store",
    "align_tilt_series",
    "amorphous_film",
    "apply_alignment",
    "apply_refinement",
    "calibrate_scan",
    "classify_atoms",
    "compare_atoms",
    "connect",
    "coordination",
    "correct_frames",
    "denoise",
    "import_acquisition",
    "import_tilt_series",
    "nanoparticle",
    "normalised_rmse",
    "preprocess_acquisition",
    "project_volume",
    "r1_factor",
    "r_factor",
    "read_atoms",
    "reconstruct_refined",
    "reconstruct_resire",
    "reconstruct_scan",
    "reconstruct_slabs",
    "refine_angles",
    "refine_atoms",
    "register_frames",
    "simulate_acquisition",
    "simulate_tilt_series",
    "subtract_background",
    "trace_atoms",
    "voronoi_indices",
    "voronoi_statistics",
    "warren_cowley",
    "write_xyz",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
