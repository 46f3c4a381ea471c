"""The table of all analyses."""

from __future__ import annotations

import numpy as np

from aetdist.analysis.catalogue import analyze_atoms
from aetdist.report.findings import Findings


def test_summary__figures_that_copies_do_not_have_have_no_sigma(complete: Findings) -> None:
    """Clusters of solute centres are not looked for again in every copy."""
    assert complete.atoms is not None
    some = complete.atoms[["position", "type", "position_sigma"]]
    summary = analyze_atoms(some, cutoff=3.6, r_max=9.0, solute=3, surrogates=0, draws=2)["summary"]
    sigma = dict(zip(summary["figure"].values.tolist(), summary["sigma"].values.tolist(), strict=True))
    assert np.isnan(sigma["solute centres"]) and sigma["ordered atoms (%)"] > 0
