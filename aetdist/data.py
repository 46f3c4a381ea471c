"""Published data sets of atomic electron tomography, fetched where their authors keep them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import AetdistError, AetdistWarning, InputError
from .io.readers import digest_of_file, list_datasets
from .progress import report

HOST = "https://raw.githubusercontent.com"
FOLDER = "AETDIST_DATA"


class DownloadError(AetdistError):
    """A published file that could not be fetched; nothing of it is left behind."""


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published data set.

    Parameters
    ----------
    path : str
        Where it lies in its repository.
    commit : str
        Commit of the repository that it is taken from.
    n_numbers : int, optional
        How many numbers its variable holds, where the publication says so: a file that holds others is refused.
    sha256 : str, optional
        Digest of its bytes, where it is known. Otherwise the digest of the first download is recorded beside the file,
        and holds from then on.
    instead : str, optional
        ``file.h5::dataset`` in the folder ``AETDIST_DATA`` that reads as the file does.
    by_default : bool
        Fetched where no file is named.
    """

    path: str
    commit: str
    n_numbers: int | None = None
    sha256: str | None = None
    instead: str | None = None
    by_default: bool = True


@dataclass(frozen=True)
class Published:
    """A published data set.

    Parameters
    ----------
    title : str
        What it is, with its pixel size.
    citation : str
        What a user cites.
    repository : str
        owner/name on GitHub.
    files : dict of str to PublishedFile
        By a short name.
    command : str
        What to do with it at the command line; {name} stands for a file.
    """

    title: str
    citation: str
    repository: str
    files: dict[str, PublishedFile]
    command: str


_YANG = (
    'Y. Yang et al., "Determining the three-dimensional atomic structure of an amorphous solid", '
    "Nature 592, 60-64 (2021), doi:10.1038/s41586-021-03354-0"
)
_YUAN = (
    'Y. Yuan et al., "Three-dimensional atomic packing in amorphous solids with liquid-like structure", '
    "Nature Materials 21, 95-102 (2022), doi:10.1038/s41563-021-01114-z"
)
_PHAM = "M. Pham et al., Scientific Reports 13, 5624 (2023)"
_GLASS, _MONATOMIC = "AET-MetallicGlass/Supplementary-Data-Codes", "AET-AmorphousMaterials/Supplementary-Data-Codes"
_MODEL, _SAMPLE = "8_Data_analysis_mro/input/final_atom", "2_RESIRE_package"
_TA = "1_Measured_data/Ta_film"
_YANG_COMMIT, _SAMPLE_COMMIT = "fd45a194e503757b70b4c1f2ca848621bce711c6", "9969a71a1a1b6b1a085150aa6acc159ed1116d44"
_YUAN_COMMIT = "f4df23a61a77fd6cfa65d27f57406beb0040e95e"
_PARTICLE = "metallic_glass_nanoparticle.h5"

# No digest is said: it would have to come from the bytes of the file, of which only the numbers are at hand.
PUBLISHED = {
    "metallic-glass": Published(
        "Metallic-glass nanoparticle of eight elements: final positions, types and tilt angles (pixel 0.347 Angstrom)",
        _YANG,
        _GLASS,
        {
            "atoms": PublishedFile(
                f"{_MODEL}_coord_inA.mat", _YANG_COMMIT, 3 * 18356, instead=f"{_PARTICLE}::positions_angstrom"
            ),
            "types": PublishedFile(f"{_MODEL}_types.mat", _YANG_COMMIT, 18356, instead=f"{_PARTICLE}::types"),
            "angles": PublishedFile(
                "1_Measured_data/Angles.mat", _YANG_COMMIT, 3 * 55, instead=f"{_PARTICLE}::angles_deg"
            ),
        },
        "aetdist analyze {atoms} --types {types} -o metallic-glass.zarr",
    ),
    "resire-sample": Published(
        "Test object of the RESIRE package: simulated projections, their angles, the true volume (pixels as unit)",
        f"{_YANG}; {_PHAM}",
        _GLASS,
        {
            "projections": PublishedFile(
                f"{_SAMPLE}/input/sample_projections_amorphous.mat", _SAMPLE_COMMIT, 41 * 64 * 64
            ),
            "angles": PublishedFile(
                f"{_SAMPLE}/input/sample_angles_amorphous.mat",
                _SAMPLE_COMMIT,
                3 * 41,
                instead="resire_sample_64.h5::angles_deg",
            ),
            "truth": PublishedFile(f"{_SAMPLE}/output/ground_truth_amorphous_vol.mat", _SAMPLE_COMMIT, 64**3),
        },
        "aetdist import {projections} --angles {angles} --transpose --pixel-size 1 -o sample.zarr",
    ),
    "ta-film": Published(
        "Amorphous Ta film: final positions, tilt angles, projections of its sub-areas (pixel 0.3216 Angstrom)",
        _YUAN,
        _MONATOMIC,
        {
            "atoms": PublishedFile("6_Final_coordinates/Final_atomic_model_Ta_film.mat", _YUAN_COMMIT),
            "angles": PublishedFile(f"{_TA}/angles.mat", _YUAN_COMMIT, 3 * 46, instead="ta_film_fov_A.h5::angles_deg"),
            **{
                f"area{k}": PublishedFile(
                    f"{_TA}/Sub_area_projections_for_sAET/Projections_area{k}.mat", _YUAN_COMMIT, by_default=False
                )
                for k in (*range(1, 30), *range(40, 66))
            },
        },
        "aetdist analyze {atoms} -o ta-film.zarr",
    ),
    "pd1-nanoparticle": Published(
        "Amorphous Pd nanoparticle 1: final positions",
        _YUAN,
        _MONATOMIC,
        {"atoms": PublishedFile("6_Final_coordinates/Final_atomic_model_Pd1_nanoparticle.mat", _YUAN_COMMIT)},
        "aetdist analyze {atoms} -o pd1.zarr",
    ),
    "pd2-nanoparticle": Published(
        "Amorphous Pd nanoparticle 2: final positions and tilt angles",
        _YUAN,
        _MONATOMIC,
        {
            "atoms": PublishedFile("6_Final_coordinates/Final_atomic_model_Pd2_nanoparticle.mat", _YUAN_COMMIT),
            "angles": PublishedFile("1_Measured_data/Pd2_nanoparticle/angles.mat", _YUAN_COMMIT),
        },
        "aetdist analyze {atoms} -o pd2.zarr",
    ),
}
"""The data sets by name."""


def fetch(name: str, *files: str, folder: str | Path | None = None) -> dict[str, str]:
    """Computes: where the files of a published data set are; those that are not there are downloaded.

    Parameters
    ----------
    name : str
        One of `PUBLISHED`, such as ``"metallic-glass"``.
    *files : str
        Which of its files; without any, those that are fetched by default.
    folder : str or Path, optional
        Where to keep them, as ``<name>/<path in the repository>``; the default is the user's cache.

    Returns
    -------
    dict of str to str
        Path of each file (or ``file.h5::dataset``), as `aetdist.io.read_atoms` and `aetdist.import_tilt_series` take
        it. The folder that the environment variable ``AETDIST_DATA`` names is looked into first.

    Raises
    ------
    InputError
        If there is no such data set or file.
    DownloadError
        If a file cannot be downloaded, is cut short, is not what was published, or was changed since.

    Warns
    -----
    AetdistWarning
        When a file is downloaded for the first time whose digest nobody has said: it is recorded beside the file, as
        ``<file>.sha256``, and later downloads are held against it.

    Notes
    -----
    Whoever uses the data cites them: ``PUBLISHED[name].citation``.
    """
    if name not in PUBLISHED:
        raise InputError(f"There is no published data set {name!r}; needed is one of {', '.join(PUBLISHED)}.")
    published = PUBLISHED[name]
    unknown = [file for file in files if file not in published.files]
    if unknown:
        raise InputError(f"{name} has no file {unknown[0]!r}; needed is one of {', '.join(published.files)}.")
    wanted = files or [key for key, file in published.files.items() if file.by_default]
    return {key: _at_hand(name, published.files[key]) or _downloaded(name, key, folder) for key in wanted}


def _at_hand(name: str, file: PublishedFile) -> str | None:
    """Where a file is in the folder AETDIST_DATA, if it is there."""
    if not os.environ.get(FOLDER):
        return None
    folder = Path(os.environ[FOLDER])
    if (folder / name / file.path).is_file():
        return str(folder / name / file.path)
    if file.instead is not None and (folder / file.instead.partition("::")[0]).is_file():
        return str(folder / file.instead)
    return None


def _downloaded(name: str, key: str, folder: str | Path | None) -> str:
    """Path of a file in the cache, downloaded if it is not there."""
    import pooch  # here, as it brings the network with it

    published = PUBLISHED[name]
    file = published.files[key]
    path = Path(folder or pooch.os_cache("aetdist")) / name / file.path
    url = f"{HOST}/{published.repository}/{file.commit}/{file.path}"
    recorded = path.with_name(path.name + ".sha256")
    known = file.sha256 or (recorded.read_text().split()[0] if recorded.is_file() else None)
    if path.is_file() and known is not None and digest_of_file(path) != known:
        raise DownloadError(f"{path} was changed since it was downloaded; delete it, and it is fetched again.")
    if path.is_file() and known is not None:
        return str(path)
    with _failures(name, key, path, url), _quiet(pooch.get_logger()):
        pooch.retrieve(
            url,
            known_hash=known and f"sha256:{known}",
            fname=path.name,
            path=path.parent,
            downloader=_Checked(pooch.HTTPDownloader(progressbar=_Bar(f"{name}: {key}")), file, url),
        )
    if known is None:
        digest = digest_of_file(path)
        recorded.write_text(f"{digest}  {path.name}\n")
        warnings.warn(
            f"No digest of {path.name} ({name}) is known, so this first download was taken on trust; its SHA-256 "
            f"{digest} is recorded in {recorded}.",
            AetdistWarning,
            stacklevel=3,
        )
    return str(path)


class _Checked:
    """A downloader that refuses what is no such file, before it takes its place."""

    def __init__(self, download: Callable[..., Any], file: PublishedFile, url: str) -> None:
        self._download, self._file, self._url = download, file, url

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Download to a temporary file and look into it."""
        self._download(url, output_file, pooch)
        found = list_datasets(output_file)
        sizes = {key: math.prod(map(int, what.split()[0].split("x"))) for key, what in found.items()}
        if len(sizes) != 1 or self._file.n_numbers not in (None, *sizes.values()):
            came = ", ".join(f"{key} ({what})" for key, what in found.items()) or "no MATLAB variable"
            needed = f"one of {self._file.n_numbers} numbers" if self._file.n_numbers else "a single one"
            raise ValueError(f"{came} came, {needed} is needed")


class _Bar:
    """What pooch takes for a progress bar: it reports to whoever listens."""

    def __init__(self, label: str) -> None:
        self.total, self._done, self._label = 0, 0, label

    def update(self, n: int) -> None:
        self._done = min(self._done + n, self.total) if self.total else self._done + n
        report(self._done, self.total or None, self._label)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        """Do nothing: the bar goes with its listener."""


@contextlib.contextmanager
def _failures(name: str, key: str, path: Path, url: str) -> Iterator[None]:
    """Say in one line why a download failed and what to do."""
    import requests

    way_out = f"or copy it from elsewhere to {name}/{PUBLISHED[name].files[key].path} in a folder that {FOLDER} names"
    try:
        yield
    except requests.HTTPError as error:
        raise DownloadError(f"{error}; try later, {way_out}.") from None
    except requests.exceptions.ChunkedEncodingError:
        raise DownloadError(f"{url} ended before all had come; nothing was kept. Try again, {way_out}.") from None
    except (requests.ConnectionError, requests.Timeout):
        raise DownloadError(f"{url} cannot be reached; is this machine offline? Try again, {way_out}.") from None
    except requests.RequestException as error:
        raise DownloadError(f"{url} cannot be downloaded ({error}); try again, {way_out}.") from None
    except ValueError as error:
        reason = "its SHA-256 is another one" if "hash" in str(error) else str(error)
        raise DownloadError(f"{url} is not the file that was published: {reason}; nothing was kept.") from None
    except OSError as error:
        raise DownloadError(f"{path} cannot be written ({error.strerror}); name another folder.") from None


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keep pooch from printing."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
