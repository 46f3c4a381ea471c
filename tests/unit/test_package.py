from __future__ import annotations

import os
import re
import subprocess
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import dask.array as da
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def constraints():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_constraints__only_names_and_versions():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[0-9a-z.+]+", line), line
    assert "://" not in (ROOT / "constraints.txt").read_text()


def test_constraints__hold_every_requirement_of_core_and_extras():
    pinned = constraints()
    table = PROJECT["project"]
    wanted = [*table["dependencies"], *(word for extra in table["optional-dependencies"].values() for word in extra)]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_dependencies__ranges_open_upwards():
    # zarr alone has an upper bound: its next format is not ours to promise.
    for requirement in map(Requirement, requires("aetdist")):
        operators = {part.operator for part in requirement.specifier}
        assert operators == ({">=", "<"} if requirement.name == "zarr" else {">="}), requirement


def test_version__of_the_installed_package():
    assert version("aetdist") == PROJECT["project"]["version"]


def test_importlinter__every_module_has_its_layer():
    layers = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    assert layers["exhaustive"]
    named = set(re.findall(r"\w+", " ".join(layers["layers"])))
    there = {
        path.stem for path in (ROOT / "aetdist").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there - {"__init__"} <= named


def test_ci__is_executable_and_valid_bash():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


def test_readme__test_command_is_what_ci_runs():
    command = "python -m pytest"
    assert re.search(rf"\.venv/bin/{command}$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert re.search(rf"^step \.venv/bin/{command}$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_citation__version_and_licence_of_the_package():
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]


def test_no_compute__refuses(no_compute):
    with pytest.raises(AssertionError, match="computed"):
        da.ones(3, chunks=1).sum().compute()


def test_client__two_workers(client):
    assert len(client.scheduler_info()["workers"]) == 2
