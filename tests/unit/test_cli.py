from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import aetdist
import aetdist.cluster
from aetdist import _console, progress
from aetdist.cli import program
from aetdist.errors import AetdistWarning, CapacityError, InputError

COMMANDS = [
    "import",
    "run",
    "config",
    "reconstruct",
    "scan",
    "trace",
    "classify",
    "refine",
    "export",
    "compare",
    "info",
    "demo",
    "simulate",
    "project",
    "report",
]


class Pipeline(types.ModuleType):
    """Stands for `aetdist.pipeline`: notes every call, gives back `answer` or raises it."""

    def __init__(self):
        super().__init__("aetdist.pipeline")
        self.calls = []
        self.answer = {"n_atoms": 3}

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def function(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer() if callable(self.answer) else self.answer

        return function


@pytest.fixture
def pipeline(monkeypatch):
    fake = Pipeline()
    monkeypatch.setitem(sys.modules, "aetdist.pipeline", fake)
    monkeypatch.setattr(aetdist, "pipeline", fake, raising=False)
    return fake


@pytest.fixture
def clusters(monkeypatch):
    """Every `connect` is noted and starts nothing."""
    seen = []

    def connect(cluster=None, **options):
        seen.append((cluster, options))
        return contextlib.nullcontext()

    monkeypatch.setattr(aetdist.cluster, "connect", connect)
    return seen


def invoke(*words):
    return CliRunner().invoke(program, [str(word) for word in words])


def test_help__every_command():
    text = invoke("--help").stdout
    for name in COMMANDS:
        assert f"  {name} " in text
        assert invoke(name, "--help").exit_code == 0


def test_help__imports_nothing_scientific():
    code = (
        "import sys\nfrom aetdist.cli import program\n"
        "try: program(['scan', '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "print(sorted({'numpy', 'dask', 'distributed', 'numba', 'xarray', 'zarr', 'scipy', 'rich'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_version__of_the_package():
    assert invoke("--version").stdout.strip() == f"aetdist, version {_version()}"


def _version():
    from importlib.metadata import version

    return version("aetdist")


def test_import__passes_what_was_given_and_nothing_else(pipeline):
    answer = invoke(
        *("import", "a film.h5", "-o", "run.zarr", "--images", "images", "--pixel-size", "0.3216"),
        *("--detector", "38", "200", "--mask", "nan", "--tilt-axis", "-3.5", "--voltage", "300"),
    )
    assert answer.exit_code == 0, answer.stderr
    ((name, (files, output), options),) = pipeline.calls
    assert (name, [str(file) for file in files], str(output)) == ("import_series", ["a film.h5"], "run.zarr")
    assert options == {
        "images": "images",
        "pixel_size": 0.3216,
        "detector": (38.0, 200.0),
        "mask": "nan",
        "tilt_axis": -3.5,
        "voltage": 300.0,
    }


def test_import__flags(pipeline):
    invoke("import", "a.mrc", "-o", "run.zarr", "--pixel-size", 1, "--flip-tilt", "--overwrite")
    assert pipeline.calls[0][2] == {"pixel_size": 1.0, "flip_tilt": True, "overwrite": True}


def test_scan__window_and_cluster(pipeline, clusters):
    words = ("scan", "run.zarr", "--window", 131, 73, "--overlap", 65, "--thickness", 48.6)
    assert invoke(*words, "--workers", 2, "--memory-limit", "2GB").exit_code == 0
    assert pipeline.calls[0][2] == {"window": (131, 73), "overlap": 65, "thickness": 48.6}
    assert clusters == [(None, {"workers": 2, "memory_limit": "2GB"})]
    assert invoke(*words, "--cluster", "tcp://there:8786").exit_code == 0
    assert clusters[1] == ("tcp://there:8786", {"store": Path("run.zarr")})
    assert invoke(*words, "--cluster", "slurm", "--workers", 2, "--insecure").exit_code == 0
    assert clusters[2] == ("slurm", {"workers": 2, "insecure": True, "store": Path("run.zarr")})


def test_set__any_keyword_of_the_stage(pipeline, clusters):
    words = ("--set", "threshold=0.25", "--set", "window=[3, 4]", "--set", "solver=published", "--minimum-distance", 2)
    assert invoke("trace", "run.zarr", *words).exit_code == 0
    assert pipeline.calls[0][2] == {"threshold": 0.25, "window": [3, 4], "solver": "published", "minimum_distance": 2.0}
    answer = invoke("trace", "run.zarr", "--set", "threshold")
    assert answer.exit_code == 2
    assert "KEY=VALUE" in answer.stderr


def test_cluster__is_asked_for_the_store_that_a_command_makes(pipeline, clusters, tmp_path):
    file = tmp_path / "experiment.toml"
    file.write_text('store = "go-on.zarr"\n[trace]\n')
    assert invoke("run", file, "--cluster", "tcp://there:1").exit_code == 0
    assert invoke("import", "a.mrc", "-o", "new.zarr", "--cluster", "tcp://there:1").exit_code == 0
    assert [options["store"] for _, options in clusters] == [tmp_path / "go-on.zarr", Path("new.zarr")]


def test_run__dry_run_starts_no_cluster(pipeline, clusters):
    assert invoke("run", "experiment.toml", "--dry-run").exit_code == 0
    assert pipeline.calls[0][2] == {"dry_run": True}
    assert clusters == []


def test_reconstruct__shape(pipeline, clusters):
    invoke("reconstruct", "run.zarr", "--shape", 921, 136, 151, "--solver", "published", "--iterations", 40)
    assert pipeline.calls[0][2] == {"shape": (921, 136, 151), "solver": "published", "iterations": 40}
    assert clusters == []  # here, on all cores


@pytest.mark.parametrize("command", ["reconstruct", "scan"])
def test_solver__every_one_there_is(command):
    from aetdist.reconstruct.solvers import SOLVERS

    (option,) = (option for option in program.commands[command].params if option.name == "solver")
    assert tuple(option.type.choices) == tuple(SOLVERS)


def test_simulate__cluster_only_when_asked(pipeline, clusters):
    words = ("simulate", "atoms.xyz", "-o", "run.zarr", "--angles", "a.tlt", "--pixel-size", 0.35, "--seed", 3)
    invoke(*words)
    assert clusters == []
    invoke(*words, "--workers", 1)
    assert len(clusters) == 1


def test_simulate__shape_of_atoms_and_field(pipeline):
    words = ("simulate", "atoms.xyz", "-o", "run.zarr", "--angles", "a.tlt", "--field", 60, 40, "--sigma", 0.4)
    invoke(*words, "--heights", "1,2.5", "--set", "read_noise=2")
    options = pipeline.calls[0][2]
    assert (options["field"], options["sigma"], options["heights"]) == ((60, 40), 0.4, [1.0, 2.5])
    assert options["read_noise"] == 2
    answer = invoke(*words, "--heights", "1;2")
    assert answer.exit_code == 2
    assert "numbers with commas" in answer.stderr


def test_simulate__errors_and_multislice(pipeline):
    words = ("simulate", "atoms.xyz", "-o", "run.zarr", "--angles", "a.tlt", "--kind", "particle")
    invoke(*words, "--angle-error", 0.3, "--shift", 3, "--carbon", 30, "--multislice", "--set", "detector=[40, 200]")
    options = pipeline.calls[0][2]
    assert (options["kind"], options["angle_error"], options["shift"], options["carbon"]) == (
        "particle",
        0.3,
        3.0,
        30.0,
    )
    assert options["multislice"] is True and options["detector"] == [40, 200]
    invoke(*words)
    assert "multislice" not in pipeline.calls[1][2]


def test_export__nothing_asked(pipeline):
    answer = invoke("export", "run.zarr")
    assert answer.exit_code == 2
    assert "--atoms" in answer.stderr
    assert pipeline.calls == []


def test_config__prints_the_text_alone(pipeline):
    pipeline.answer = "[trace]\nminimum_distance = 2.0 # angstrom\n"
    assert invoke("config").stdout == pipeline.answer
    assert json.loads(invoke("config", "--json").stdout)["text"] == pipeline.answer


def test_json__one_object_and_nothing_else(pipeline):
    def answer():
        print("a line that some library prints")
        return {"r_factor_mean": np.float32(0.25), "rms": float("nan"), "r_factor": np.array([1.0, np.inf])}

    pipeline.answer = answer
    shown = invoke("info", "run.zarr", "--json")
    summary = json.loads(shown.stdout)
    assert summary["r_factor_mean"] == 0.25
    assert summary["rms"] is None
    assert summary["r_factor"] == [1.0, None]
    assert summary["seconds"] >= 0
    assert summary["peak_memory_bytes"] > 10_000_000
    assert "some library" in shown.stderr


def test_summary__lines_with_units(pipeline):
    pipeline.answer = {
        "n_atoms": 1842,
        "rms": 0.2301,
        "shape": [3, 4, 5],
        "part": {"recall": 0.5},
        "rms_x": float("nan"),
    }
    lines = invoke("info", "run.zarr").stdout.splitlines()
    assert lines[0].split() == ["atoms", "1842"]
    assert lines[1].split() == ["rms", "deviation", "0.2301", "Å"]
    assert lines[2].split() == ["shape", "3,", "4,", "5"]
    assert lines[4].split() == ["recall", "0.5"] and lines[4].startswith("  ")
    assert lines[5].endswith("not defined")
    assert lines[-2].startswith("time") and lines[-1].startswith("peak memory")
    assert lines[-1].endswith((" MB", " GB"))


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("A pixel size of 0 came;\n needed is more."), 2, "error: A pixel size of 0 came; needed is more."),
        (CapacityError("needs 300 GB"), 2, "error: needs 300 GB"),
        (OSError(errno.ENOSPC, "No space left on device", "run.zarr"), 1, "error: No space left on device: run.zarr"),
        (KeyError("x"), 1, "error: unexpected KeyError: 'x' (--debug shows where)"),
    ],
)
def test_error__one_line(pipeline, error, code, words):
    pipeline.answer = error
    answer = invoke("info", "run.zarr", "--json")
    assert answer.exit_code == code
    assert answer.stdout == ""
    assert answer.stderr == f"aetdist: {words}\n"


def test_error__debug_shows_the_traceback(pipeline):
    pipeline.answer = KeyError("x")
    assert "Traceback" in invoke("info", "run.zarr", "--debug").stderr


def test_error__unknown_option_names_the_nearest():
    answer = invoke("scan", "run.zarr", "--windw", 1, 1)
    assert answer.exit_code == 2
    assert answer.stderr.count("\n") == 1
    assert "--window" in answer.stderr


def test_warning__one_line(pipeline):
    def answer():
        warnings.warn("Tilts 3 and 4\nare the same.", AetdistWarning, stacklevel=1)
        return {}

    pipeline.answer = answer
    shown = invoke("info", "run.zarr")
    assert shown.exit_code == 0
    assert shown.stderr == "aetdist: warning: Tilts 3 and 4 are the same.\n"


def test_progress__plain_lines_without_a_terminal(pipeline):
    def answer():
        for done in range(5):
            progress.report(done, 4, "windows")
        return {}

    pipeline.answer = answer
    lines = invoke("info", "run.zarr").stderr.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["windows 0/4", "windows 4/4"]


def test_bars__follow_reports(capsys):
    with _console._Bars() as bars:
        bars(0, 4, "windows")
        bars(3, 4, "windows")
        bars(1, None, "stitch")
        assert [task.completed for task in bars.progress.tasks] == [3, 1]
        assert [task.total for task in bars.progress.tasks] == [4, None]
    assert capsys.readouterr().out == ""


def test_log__holds_summary_and_traceback(pipeline, tmp_path):
    file = tmp_path / "a log.txt"
    pipeline.answer = InputError("A pixel size of 0 came.")
    assert invoke("info", "run.zarr", "--log", file).exit_code == 2
    assert "Traceback" in file.read_text() and "A pixel size of 0" in file.read_text()
    pipeline.answer = {"n_atoms": 7}
    invoke("info", "run.zarr", "--log", file)
    assert '"n_atoms": 7' in file.read_text()
    assert logging.getLogger("aetdist").handlers == []


def test_log__unwritable(pipeline, tmp_path):
    answer = invoke("info", "run.zarr", "--log", tmp_path / "none" / "log.txt")
    assert answer.exit_code == 2
    assert "log" in answer.stderr
    assert pipeline.calls == []


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal__prints_the_command_that_resumes(pipeline, clusters, monkeypatch, signum, code):
    monkeypatch.setattr(sys, "argv", ["/opt/env/bin/aetdist"])
    before = signal.getsignal(signum)
    pipeline.answer = lambda: os.kill(os.getpid(), signum)
    answer = invoke("trace", "a film.zarr", "--minimum-distance", 2)
    assert answer.exit_code == code
    assert answer.stderr == (
        f"aetdist: stopped by {signum.name}; what was finished is kept. "
        "Resume with: /opt/env/bin/aetdist trace 'a film.zarr' --minimum-distance 2\n"
    )
    assert signal.getsignal(signum) == before


def test_resume_command__never_overwrites(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bin/aetdist"])
    assert _console.resume_command(["import", "a.h5", "--overwrite"]) == "bin/aetdist import a.h5"
    monkeypatch.setattr(sys, "argv", ["lib/aetdist/__main__.py"])
    assert _console.resume_command(["info", "b"]).endswith(" -m aetdist info b")


def test_compare__reads_and_compares(monkeypatch):
    calls = []

    class Comparison:
        def to_dict(self):
            return {"recall": 1.0, "f1": 1.0}

    io = types.ModuleType("aetdist.io")
    io.read_atoms = lambda path: f"atoms of {path}"
    metrics = types.ModuleType("aetdist.metrics")
    metrics.compare_atoms = lambda found, truth, **options: calls.append((found, truth, options)) or Comparison()
    monkeypatch.setitem(sys.modules, "aetdist.io", io)
    monkeypatch.setitem(sys.modules, "aetdist.metrics", metrics)
    answer = invoke("compare", "a.xyz", "b.h5::x/y", "--tolerance", 0.75, "--by-type", "--align", "rigid", "--json")
    assert json.loads(answer.stdout)["recall"] == 1.0
    assert calls == [("atoms of a.xyz", "atoms of b.h5::x/y", {"tolerance": 0.75, "by_type": True, "align": "rigid"})]


def test_classify__species_and_elements(pipeline, clusters):
    answer = invoke("classify", "run.zarr", "--species", 3, "--elements", "Co, Pd,Pt", "--set", "radius=8.0")
    assert answer.exit_code == 0, answer.stderr
    ((name, (store,), options),) = pipeline.calls
    assert (name, str(store)) == ("classify", "run.zarr")
    assert options == {"species": 3, "elements": ["Co", "Pd", "Pt"], "radius": 8.0}
    assert len(clusters) == 1


def test_refine__passes_what_was_given_and_nothing_else(pipeline, clusters):
    assert invoke("refine", "run.zarr").exit_code == 0
    assert pipeline.calls[0][2] == {}
    words = ("--iterations", 5, "--heights", "atom", "--edits", "by hand.csv", "--no-curate", "--elements", "Ta")
    assert invoke("refine", "run.zarr", *words).exit_code == 0
    options = pipeline.calls[1][2]
    assert str(options.pop("edits")) == "by hand.csv"
    assert options == {"iterations": 5, "heights": "atom", "curate": False, "elements": ["Ta"]}
    assert invoke("refine", "run.zarr", "--heights", "each").exit_code == 2


def test_summary__of_atoms(pipeline):
    pipeline.answer = {
        "n_atoms": 3,
        "atoms_of_type": {"1": 1, "2": 2},
        "edits_applied": {"add": 2, "delete": 1},
        "position_sigma_pm": [7.51, 7.6, 8.0],
        "cramer_rao_pm": 7.5,
    }
    lines = [" ".join(line.split()) for line in invoke("info", "run.zarr").stdout.splitlines()]
    assert lines[:8] == [
        "atoms 3",
        "atoms of each type",
        "1 1",
        "2 2",
        "edits by hand",
        "add 2",
        "delete 1",
        "uncertainty along x, y, z, median 7.51, 7.6, 8 pm",
    ]
    assert lines[8] == "Cramér-Rao bound, x, y, z together 7.5 pm"


def test_summary__of_lists_in_lists(pipeline):
    pipeline.answer = {"confusion": [[5, 1], [0, 7]], "edits": ["delete,1,2,3", "add,4,5,6"], "types": [1, 2]}
    lines = [" ".join(line.split()) for line in invoke("info", "run.zarr").stdout.splitlines()]
    assert lines[:3] == ["confusion 5, 1; 0, 7", "edits delete,1,2,3; add,4,5,6", "types 1, 2"]
