"""The reconstruction engine against its peers, side by side in one run; prints JSON.

    python tests/benchmarks/bench_engine.py all > figures.json
    python tests/benchmarks/bench_engine.py --markdown figures.json

One thread, medians, compilation left out; `cpu_s` is user + sys, of workers and child processes too.

    small     64^3 x 41, single axis: per iteration against SIRT, to equal error against SART of ASTRA
    large     320^3 x 55 at the nanoparticle's Euler angles: against ducc0's NUFFT and a plain voxel-driven
              pair; to R <= 0.02; peak memory
    film      the measured film in one piece: seconds, memory, agreement with the published volume
    sample    the RESIRE package's test object: iterations to a normalised RMSE of 0.215 and 0.18
    scaling   an iteration over voxels and tilts
    threads   2 (4, 8, ...) threads over 1, beside what so many independent copies gain
    scan      2 (4, 8, ...) workers over 1, the same way

The peers come with the extra `benchmark`, the published data through AETDIST_DATA; what is not there is left
out. `all` needs about 5 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PARTS = ("small", "large", "film", "sample", "scaling", "threads", "scan")
THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def machine() -> dict[str, Any]:
    """What the figures were measured on and with."""
    versions = {}
    for package in ("aetdist", "numpy", "numba", "astra-toolbox", "ducc0"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    information = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (information.read_text().splitlines() if information.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **versions,
    }


def measure(parts: list[str], tiny: bool) -> dict[str, Any]:
    """The figures of some parts."""
    from engine import parallel
    from engine import parts as single
    from engine.sizes import TINY, Sizes

    sizes = TINY if tiny else Sizes()
    functions = {
        **{name: getattr(single, name) for name in ("small", "large", "film", "sample", "scaling")},
        "threads": parallel.threads,
        "scan": parallel.scan,
    }
    figures: dict[str, Any] = {"machine": machine()}
    for name in parts:
        begin = time.perf_counter()
        figures[name] = functions[name](sizes)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return figures


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "all"], default="all", metavar="part")
    parser.add_argument("--tiny", action="store_true", help="sizes without meaning, to see that everything runs")
    parser.add_argument("--markdown", metavar="FILE", help="print the README's table from measured figures")
    options = parser.parse_args()
    if options.markdown:
        from engine.table import markdown

        print(markdown(json.loads(Path(options.markdown).read_text())))
        return
    parts = [part for part in PARTS if part in options.parts or "all" in options.parts]
    print(json.dumps(measure(parts, options.tiny), indent=1))


if __name__ == "__main__":
    os.environ |= {**dict.fromkeys(THREADS, "1"), "OMP_WAIT_POLICY": "passive"}
    main()
