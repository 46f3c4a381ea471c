"""The groups of a tilt series: in memory, on disk where they are large, or on the workers of a Dask client."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import dask
import numpy as np
import xarray as xr

from .._threads import kernel_threads
from ..blocks.windows import current_client, share
from .tilts import Group, make_group

TILTS_PER_GROUP = 4  # the same for any number of workers: sums over groups come in one order
IN_MEMORY = 2**25
"""Bytes of images that this process keeps in memory; more lie in files, of which each thread reads a group."""
ALONE = 2**20
"""Pixels of a series of which the workers of a client would do less than what it takes to send them work."""
_ARRAYS = 4 * 4  # bytes for each pixel: raw, measured, images, weights


class Series:
    """All groups of a tilt series.

    Every sum over groups is taken in the order of the tilts, whoever computed them.
    """

    def __init__(self, groups: list[Any], pixel_size: float, client: Any = None) -> None:
        self.groups = groups
        self.pixel_size = pixel_size
        self.client = client

    @classmethod
    def of(cls, series: xr.Dataset, outside: Any = None, inside: Any = None) -> Series:
        """Cut a tilt series into groups; lazy images are read by the worker that keeps them.

        Parameters
        ----------
        series : xarray.Dataset
            TILT_SERIES with ``matrices`` and ``pixel_size``.
        outside, inside : array_like, shape (tilt, y, x), optional
            What matter shows that is not refined, taken off the images, and that which is; pixels that see much of
            the former do not count.
        """
        n_pixels = series["images"].size
        client = current_client() if n_pixels > ALONE else None
        on_disk = client is None and _ARRAYS * n_pixels > IN_MEMORY
        size = float(series["pixel_size"])
        corner = np.array([float(series[axis].values[0]) for axis in "yx"]) / size
        groups: list[Any] = []
        for first in range(0, series.sizes["tilt"], TILTS_PER_GROUP):
            some = slice(first, first + TILTS_PER_GROUP)
            numbers = np.arange(series.sizes["tilt"])[some]
            parts: list[Any] = [series["images"].data[some], series["mask"].data[some]]
            parts += [None if beside is None else beside[some] for beside in (outside, inside)]
            arguments = (numbers, *parts, series["matrices"].values[some], corner, size)
            if client is not None:
                groups.append(client.compute(dask.delayed(make_group)(*arguments)))
            else:
                group = make_group(*arguments)
                groups.append(OnDisk.of(group) if on_disk else group)
        return cls(groups, size, client)

    def each(self, function: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        """function(group, *arguments) of every group, in the order of the tilts; few results are held at a time."""
        if self.client is not None:
            shared = share(arguments)
            waiting = deque(self.client.submit(_apply, function, g, shared, pure=False) for g in self.groups)
            while waiting:
                yield waiting.popleft().result()
            return
        yield from self._on_threads(_apply, function, arguments)

    def _on_threads(self, do: Callable[..., Any], function: Callable[..., Any], arguments: Any) -> Iterator[Any]:
        """do(function, group, arguments) of every group, a few at a time."""
        threads = kernel_threads()
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Any] = deque()
            for group in self.groups:
                waiting.append(pool.submit(do, function, group, arguments))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def map(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """function(group, *arguments) of every group, in the order of the tilts."""
        return list(self.each(function, *arguments))

    def sum(self, function: Callable[..., Any], *arguments: Any) -> np.ndarray:
        """The sum of function(group, *arguments) over the groups, in the order of the tilts."""
        total: Any = 0.0
        for part in self.each(function, *arguments):
            total = total + part if np.ndim(total) == 0 else np.add(total, part, out=total)
        return np.asarray(total)

    def changed(self, function: Callable[..., Group], *arguments: Any) -> Series:
        """The series of the groups that a function makes of these."""
        if self.client is None:
            return Series(list(self._on_threads(_changed, function, arguments)), self.pixel_size)
        shared = share(arguments)
        groups = [self.client.submit(_apply, function, group, shared, pure=False) for group in self.groups]
        return Series(groups, self.pixel_size, self.client)


class OnDisk:
    """A group whose images lie in files, which go when nobody has them."""

    def __init__(self, group: Group, files: dict[str, _File]) -> None:
        empty: dict[str, Any] = dict.fromkeys(files, np.empty(0))
        self.group = replace(group, **empty)
        self.files = files

    @classmethod
    def of(cls, group: Group, held: dict[int, _File] | None = None) -> OnDisk:
        """Write a group; arrays that are held already, by their `id`, are not written again."""
        held = dict(held or {})
        files = {}
        for name in _images(group):
            array = getattr(group, name)
            if id(array) not in held:
                held[id(array)] = _File(array)
            files[name] = held[id(array)]
        return cls(group, files)

    def load(self) -> tuple[Group, dict[int, _File]]:
        """The group in memory, and which array came from which file."""
        arrays = {file: file.read() for file in self.files.values()}
        images: dict[str, Any] = {name: arrays[file] for name, file in self.files.items()}
        return replace(self.group, **images), {id(array): file for file, array in arrays.items()}


class _File:
    """An array in a file."""

    def __init__(self, array: np.ndarray) -> None:
        handle, self.path = tempfile.mkstemp(".npy", "aetdist-", dask.config.get("temporary-directory", None))
        weakref.finalize(self, os.unlink, self.path)  # first, so that nothing is left where the disk is full
        with os.fdopen(handle, "wb") as file:
            np.save(file, array)

    def read(self) -> np.ndarray:
        return np.load(self.path, allow_pickle=False)


def _images(group: Group) -> list[str]:
    """Names of what is as large as the images."""
    return [f.name for f in fields(group) if np.ndim(getattr(group, f.name)) == 3 and f.name != "matrices"]


def _apply(function: Callable[..., Any], group: Group | OnDisk, arguments: tuple[Any, ...]) -> Any:
    return function(group.load()[0] if isinstance(group, OnDisk) else group, *arguments)


def _changed(function: Callable[..., Group], group: Group | OnDisk, arguments: tuple[Any, ...]) -> Group | OnDisk:
    """What a function makes of a group, kept as it was."""
    if not isinstance(group, OnDisk):
        return function(group, *arguments)
    loaded, held = group.load()
    return OnDisk.of(function(loaded, *arguments), held)
