"""Pictures and the report of an experiment."""

from .atoms import (
    draw_atom_refinement,
    draw_differences,
    draw_intensities,
    draw_sigmas,
    draw_types_on_slices,
)
from .bonds import draw_interface, draw_nuclei, draw_order_histogram, draw_order_map
from .charts import draw_deviations, draw_r_factors
from .order import (
    draw_comparison,
    draw_pair_distribution,
    draw_partial_distributions,
    draw_structure_factor,
)
from .page import write_page, write_pictures
from .pictures import (
    draw_atoms,
    draw_atoms_on_slice,
    draw_disagreement,
    draw_film_maps,
    draw_reprojection,
    draw_slices,
)
from .style import save_picture
from .tilts import (
    draw_common_lines,
    draw_denoising,
    draw_drift,
    draw_preprocessing,
    draw_refinement,
    draw_repeats,
    draw_shifts,
)
from .validation import draw_design, draw_validation
from .voronoi import draw_chemical_order, draw_voronoi_indices
from .windows import draw_r_map, draw_windows

__all__ = [
    "draw_atom_refinement",
    "draw_atoms",
    "draw_atoms_on_slice",
    "draw_chemical_order",
    "draw_common_lines",
    "draw_comparison",
    "draw_denoising",
    "draw_design",
    "draw_deviations",
    "draw_differences",
    "draw_disagreement",
    "draw_drift",
    "draw_film_maps",
    "draw_intensities",
    "draw_interface",
    "draw_nuclei",
    "draw_order_histogram",
    "draw_order_map",
    "draw_pair_distribution",
    "draw_partial_distributions",
    "draw_preprocessing",
    "draw_r_factors",
    "draw_r_map",
    "draw_refinement",
    "draw_repeats",
    "draw_reprojection",
    "draw_shifts",
    "draw_sigmas",
    "draw_slices",
    "draw_structure_factor",
    "draw_types_on_slices",
    "draw_validation",
    "draw_voronoi_indices",
    "draw_windows",
    "save_picture",
    "write_page",
    "write_pictures",
]
