"""Many files as one acquisition: natural order, folders, the order of a table, names that say tilt and frame."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

from ...errors import InputError
from ..places import checked_name

IMAGE_SUFFIXES = frozenset(
    ".h5 .hdf5 .emd .mat .mrc .mrcs .st .ali .preali .rec .map .ccp4 .tif .tiff .btf .npy .npz .dm3 .dm4 .ser".split()
)
_NUMBER = re.compile(r"((?:(?:^|(?<=[_=\s]))[+-])?\d+(?:\.\d+)?)")
_FIELD = re.compile(r"\{(\w*)\}")
_ANY_NUMBER = r"[+-]?\d+(?:\.\d+)?"


def natural_key(text: str) -> tuple[tuple[int, float, str], ...]:
    """Key that sorts numbers in a text by their value: img_2 before img_10, tilt_-60 before tilt_-58.

    A sign counts at the beginning of the name and behind ``_``, ``=`` or a blank; elsewhere it is a hyphen.
    """
    parts = [part for part in _NUMBER.split(text) if part]
    return tuple((0, float(part), part) if _NUMBER.fullmatch(part) else (1, 0.0, part.casefold()) for part in parts)


def list_files(files: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """Files by name, folders replaced by the images in them, in natural order.

    Parameters
    ----------
    files : str, Path or sequence of them
        Files (also ``file::dataset``) and folders. What lies in folders of a folder is left out.

    Returns
    -------
    list of str or Path
        Files that were named in the order given.

    Raises
    ------
    InputError
        If there is none, a folder holds no images, or a file comes twice.
    """
    several = [files] if isinstance(files, str | Path) else list(files)
    found: list[str | Path] = []
    for entry in several:
        checked_name(str(entry).partition("::")[0])
        found += _images_in(Path(entry)) if Path(entry).is_dir() else [entry]
    if not found:
        raise InputError("No file came to import; name one or more files of images, or their folder.")
    seen: set[str] = set()
    for file in found:
        resolved = str(Path(file).resolve())
        if resolved in seen:
            raise InputError(f"{file} came twice; name every file once.")
        seen.add(resolved)
    return found


def in_natural_order(files: Iterable[str | Path]) -> list[str | Path]:
    """Files sorted by the numbers in their names, see :func:`natural_key`."""
    return sorted(files, key=lambda file: [natural_key(part) for part in Path(file).parts])


def in_order_of(files: Sequence[str | Path], names: Sequence[str], table: str | Path) -> list[str | Path]:
    """Files in the order in which a table names them; those that it does not name are left out.

    Raises
    ------
    InputError
        If the table names a file that did not come, or one file twice.
    """
    by_name = {Path(file).name: file for file in files}
    if len(by_name) < len(files):
        raise InputError(f"Files of one name in several folders came, so {table} cannot order them; rename them.")
    by_stem = {Path(file).stem: file for file in files}
    ordered, missing = [], []
    for name in names:
        file = by_name.get(name) or by_stem.get(name)
        ordered += [file] if file is not None else []
        missing += [name] if file is None else []
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{table} names {', '.join(missing[:3])}{more}, which did not come; name those files too, or take their "
            "rows out of the table."
        )
    if len(set(map(str, ordered))) < len(ordered):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise InputError(f"{table} names {twice} twice; needed is one row for each file.")
    return ordered


def last_part(path: str) -> str:
    """Name of a file in a path as Windows or POSIX writes it; tables name files of the microscope's computer."""
    return PureWindowsPath(path.strip()).name  # understands both kinds of slashes


def match_names(
    files: Iterable[str | Path], pattern: str
) -> tuple[dict[str, dict[str, str | Path]], list[str | Path], bool]:
    """Group files by what their names say of tilt and frame.

    Parameters
    ----------
    files : iterable of str or Path
        The files.
    pattern : str
        A name with ``{tilt}`` (any text) or ``{angle}`` (degrees), and ``{frame}``, such as
        ``tilt_{tilt}_frame_{frame}.tif``; ``*`` stands for anything.

    Returns
    -------
    groups : dict of str to dict of str to (str or Path)
        Files by tilt and frame, both in natural order.
    left_out : list of str or Path
        Files whose names do not fit.
    by_angle : bool
        Whether the tilts are angles in degrees.

    Raises
    ------
    InputError
        If the pattern lacks a field, no name fits, or two files say the same.
    """
    fields = _FIELD.findall(pattern)
    if sorted(fields) not in (["frame", "tilt"], ["angle", "frame"]):
        raise InputError(
            f"The pattern {pattern!r} came; needed is one {{tilt}} (or {{angle}}) and one {{frame}}, such as "
            "tilt_{tilt}_frame_{frame}.tif."
        )
    expression = ""
    for k, piece in enumerate(_FIELD.split(pattern)):
        if k % 2 == 0:
            expression += ".*".join(re.escape(text) for text in piece.split("*"))
        else:
            expression += f"(?P<{piece}>{_ANY_NUMBER if piece == 'angle' else '.+?'})"
    key = "angle" if "angle" in fields else "tilt"
    groups: dict[str, dict[str, str | Path]] = {}
    left_out: list[str | Path] = []
    for file in files:
        match = re.fullmatch(expression, Path(file).name)
        if match is None:
            left_out.append(file)
            continue
        frames = groups.setdefault(match[key], {})
        if match["frame"] in frames:
            raise InputError(f"{frames[match['frame']]} and {file} are both frame {match['frame']} of {match[key]}.")
        frames[match["frame"]] = file
    if not groups:
        raise InputError(
            f"No file is named like {pattern!r} (the first is {Path(left_out[0]).name}); mend the pattern."
        )
    order = (lambda text: (float(text),)) if key == "angle" else natural_of_field
    return (
        {
            tilt: dict(sorted(groups[tilt].items(), key=lambda item: natural_of_field(item[0])))
            for tilt in sorted(groups, key=order)
        },
        left_out,
        key == "angle",
    )


def natural_of_field(text: str) -> tuple[tuple[int, float, str], ...]:
    """Key of a field of a name: a number by its value with its sign, other text in natural order."""
    return ((0, float(text), text),) if re.fullmatch(_ANY_NUMBER, text) else natural_key(text)


def _images_in(folder: Path) -> list[str | Path]:
    """Images of a folder in natural order; hidden files and other kinds are left out."""
    found = [f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in IMAGE_SUFFIXES and f.name[0] != "."]
    if not found:
        raise InputError(
            f"The folder {folder} holds no images; needed are files of {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    for file in found:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{file} is a link to {file.resolve()}, outside the folder that is imported; name that file itself, or "
                "copy it into the folder."
            )
    return in_natural_order(found)
