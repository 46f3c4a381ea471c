"""Atomic electron tomography, distributed: the public names in the order of the experiment."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._figures import draw_figures
    from ._report import write_report
    from .acquisition import import_acquisition
    from .align import align_tilt_series, apply_alignment
    from .analysis.bonds import bond_order
    from .analysis.coordination import coordination, warren_cowley
    from .analysis.interface import interface_width
    from .analysis.mro import find_mro, mro_significance, solute_centers
    from .analysis.nuclei import find_nuclei
    from .analysis.pair_distribution import pair_distribution, structure_factor
    from .analysis.precision import crop_like, precision_effect
    from .analysis.resampling import resample, with_uncertainty
    from .analysis.surface import find_surface
    from .analysis.templates import template_matching
    from .analysis.voronoi import voronoi_indices, voronoi_statistics
    from .angles import apply_refinement, refine_angles
    from .classify import classify_atoms
    from .cluster import connect
    from .fourier_shells import fourier_shell_correlation
    from .half_sets import compare_half_sets, half_set_atoms, half_set_resolution
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
    from .progress import show_progress
    from .projections import project_volume
    from .reconstruct import reconstruct_resire, reconstruct_scan, reconstruct_slabs
    from .refine import refine_atoms
    from .refinement import reconstruct_refined
    from .simulate import (
        Multislice,
        amorphous_film,
        forecast_multislice,
        nanoparticle,
        simulate_acquisition,
        simulate_tilt_series,
    )
    from .tilt_series import import_tilt_series
    from .trace import trace_atoms
    from .validation import design_experiment, validate_model

#: Where each public name lives; imported when it is asked for, so that `aetdist --help` is quick.
_HOMES = {
    "connect": "cluster",
    "show_progress": "progress",
    "Store": "io",
    "amorphous_film": "simulate",
    "nanoparticle": "simulate",
    "simulate_tilt_series": "simulate",
    "simulate_acquisition": "simulate",
    "Multislice": "simulate",
    "forecast_multislice": "simulate",
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
    "find_surface": "analysis.surface",
    "pair_distribution": "analysis.pair_distribution",
    "structure_factor": "analysis.pair_distribution",
    "bond_order": "analysis.bonds",
    "find_nuclei": "analysis.nuclei",
    "interface_width": "analysis.interface",
    "solute_centers": "analysis.mro",
    "find_mro": "analysis.mro",
    "mro_significance": "analysis.mro",
    "validate_model": "validation",
    "design_experiment": "validation",
    "draw_figures": "_figures",
    "template_matching": "analysis.templates",
    "resample": "analysis.resampling",
    "with_uncertainty": "analysis.resampling",
    "crop_like": "analysis.precision",
    "precision_effect": "analysis.precision",
    "compare_atoms": "metrics",
    "r_factor": "metrics",
    "r1_factor": "metrics",
    "normalised_rmse": "metrics",
    "coordination": "analysis.coordination",
    "warren_cowley": "analysis.coordination",
    "voronoi_indices": "analysis.voronoi",
    "voronoi_statistics": "analysis.voronoi",
    "fourier_shell_correlation": "fourier_shells",
    "half_set_resolution": "half_sets",
    "half_set_atoms": "half_sets",
    "compare_half_sets": "half_sets",
    "read_atoms": "io",
    "write_xyz": "io",
    "write_report": "_report",
}

__all__ = [
    "Multislice",
    "Store",
    "align_tilt_series",
    "amorphous_film",
    "apply_alignment",
    "apply_refinement",
    "bond_order",
    "calibrate_scan",
    "classify_atoms",
    "compare_atoms",
    "compare_half_sets",
    "connect",
    "coordination",
    "correct_frames",
    "crop_like",
    "denoise",
    "design_experiment",
    "draw_figures",
    "find_mro",
    "find_nuclei",
    "find_surface",
    "forecast_multislice",
    "fourier_shell_correlation",
    "half_set_atoms",
    "half_set_resolution",
    "import_acquisition",
    "import_tilt_series",
    "interface_width",
    "mro_significance",
    "nanoparticle",
    "normalised_rmse",
    "pair_distribution",
    "precision_effect",
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
    "resample",
    "show_progress",
    "simulate_acquisition",
    "simulate_tilt_series",
    "solute_centers",
    "structure_factor",
    "subtract_background",
    "template_matching",
    "trace_atoms",
    "validate_model",
    "voronoi_indices",
    "voronoi_statistics",
    "warren_cowley",
    "with_uncertainty",
    "write_report",
    "write_xyz",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name == "data":  # a module whose own names stay together
        return importlib.import_module(".data", __name__)
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "data"])
