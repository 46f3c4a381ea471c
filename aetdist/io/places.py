"""Where a store is: a folder of this machine, or a place in a bucket of S3, with the same few words for both."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from zarr.storage import LocalStore, ObjectStore

from ..errors import InputError, StoreError, redacted
from .s3 import bucket, obstore, s3_errors

_AT_ONCE = 16
_ROOT = "zarr.json"


@dataclass(frozen=True)
class S3Place:
    """A name in a bucket, with those methods of `pathlib.Path` that a store needs.

    Folders exist as long as something is in them, and nothing can be moved: `rename` copies, inside S3, and deletes.

    Parameters
    ----------
    bucket : str
    key : str
        Name inside the bucket; nowhere a credential, which every process takes from its own environment.
    """

    bucket: str
    key: str

    @classmethod
    def of(cls, url: str) -> S3Place:
        """The place that ``s3://bucket/folder/run.zarr`` names.

        Raises
        ------
        InputError
            If it holds credentials, or is not such a URL.
        """
        if "@" in url:
            raise InputError(
                f"{redacted(url)} came with credentials, which would be kept with the results: leave them out of "
                "the URL and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
            )
        found = re.fullmatch(r"s3:/+([A-Za-z0-9][A-Za-z0-9._-]+)/+([^?#]+?)/*", url)
        if found is None or any(part in (".", "..") for part in found[2].split("/")):
            raise InputError(
                f"{url.partition('?')[0]} came; needed is s3://bucket/name, such as s3://lab/film/run.zarr."
            )
        return cls(found[1], "/".join(part for part in found[2].split("/") if part))

    def __str__(self) -> str:
        """URL; `place` gives it back."""
        return f"s3://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> S3Place:
        """What is called `name` in it; the place itself for ""."""
        return S3Place(self.bucket, "/".join([self.key, *filter(None, name.split("/"))]))

    @property
    def name(self) -> str:
        """Last part of the name."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """Last part of the name without its suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """End of the name from the last point on."""
        return PurePosixPath(self.key).suffix

    def with_name(self, name: str) -> S3Place:
        """What is called `name` beside it."""
        return S3Place(self.bucket, str(PurePosixPath(self.key).with_name(name)))

    def absolute(self) -> S3Place:
        """The place itself."""
        return self

    def is_symlink(self) -> bool:
        """Never: S3 has no links."""
        return False

    def is_file(self) -> bool:
        """Whether there is an object of just this name."""
        with s3_errors(self), contextlib.suppress(FileNotFoundError):
            return bool(obstore().head(bucket(self.bucket), self.key))
        return False

    def is_dir(self) -> bool:
        """Whether there is anything in it."""
        return next(self.objects(), None) is not None

    def exists(self) -> bool:
        """Whether there is an object of this name, or anything in it."""
        return self.is_dir() or self.is_file()

    def read_text(self, encoding: str = "utf-8") -> str:
        """Contents of the object.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        with s3_errors(self):
            return bytes(obstore().get(bucket(self.bucket), self.key).bytes()).decode(encoding)

    def objects(self) -> Iterator[dict[str, Any]]:
        """What S3 says of every object in it: ``path`` (the key), ``size`` (bytes) ..."""
        with s3_errors(self):
            for several in obstore().list(bucket(self.bucket), self.key):
                yield from several  # type: ignore[misc]

    def folders(self) -> list[S3Place]:
        """Folders that are in it, not deeper, by name."""
        with s3_errors(self):
            found = obstore().list_with_delimiter(bucket(self.bucket), self.key)["common_prefixes"]
        return [S3Place(self.bucket, key) for key in sorted(found)]

    def rename(self, target: S3Place) -> None:
        """Move all that is in it to a place where nothing is.

        The metadata of its own node are copied last and deleted first, so that at every moment, for who asks for
        these metadata first, one of the two places holds everything.
        """
        store = bucket(self.bucket)
        names = [entry["path"].removeprefix(self.key + "/") for entry in self.objects()]

        def copy(name: str) -> None:
            with s3_errors(target):
                obstore().copy(store, (self / name).key, (target / name).key)

        at_once(copy, [name for name in names if name != _ROOT])
        if _ROOT in names:
            copy(_ROOT)
        self.delete()

    def delete(self, *, name_last: bool = False) -> None:
        """Delete all that is in it, the metadata of its own node first, so that it is gone at once; or last."""
        root = (self / _ROOT).key
        others = [entry["path"] for entry in self.objects() if entry["path"] != root]
        with s3_errors(self):
            for several in (others, [root]) if name_last else ([root], others):
                obstore().delete(bucket(self.bucket), several)


Place = Path | S3Place


def place(where: str | Place) -> Place:
    """Where a store is, of its path or its URL.

    Parameters
    ----------
    where : str, Path or S3Place
        A folder, or ``s3://bucket/name``; also the ``s3:/bucket/name`` that `pathlib.Path` makes of it.

    Raises
    ------
    InputError
        If it is a URL of another kind, or one with credentials in it.
    """
    if isinstance(where, S3Place):
        return where
    text = str(where)
    if text.startswith("s3:/"):
        return S3Place.of(text)
    checked_name(text)
    if "://" in text:
        raise InputError(f"{redacted(text).partition('?')[0]} came; needed is a folder, or s3://bucket/name.")
    return Path(where)


def checked_name(name: str | Path) -> str:
    """Name of a file or a folder that a file system can have.

    Raises
    ------
    InputError
        If it holds a zero byte, or a part of it is too long.
    """
    text = str(name)
    if "\0" in text or any(len(part.encode(errors="replace")) > 255 for part in text.split("/")):
        raise InputError(f"{text[:60]!r} came, which cannot be the name of a file; needed is text of up to 255 bytes.")
    return text


def within(folder: Path, name: str) -> Place:
    """The store that is called `name` as seen from a folder: a path from there on, or a URL."""
    return place(name) if "://" in name else folder / name


def local_path(path: str | Place) -> Path:
    """Path of a file to write or of a folder to write it into, which cannot be in S3.

    Raises
    ------
    InputError
        If it is a URL.
    """
    where = place(path)
    if isinstance(where, S3Place):
        raise InputError(f"{where} came for a file; only stores can be in S3: name a file on this machine.")
    return where


def subfolders(where: Place) -> list[Place]:
    """Folders in a folder, by name."""
    if isinstance(where, S3Place):
        return list(where.folders())
    return [child for child in sorted(where.iterdir()) if child.is_dir()]


def remove_tree(where: Place, *, name_last: bool = False) -> None:
    """Delete a folder with all that is in it; in S3 what says what it is first, or last."""
    if isinstance(where, S3Place):
        where.delete(name_last=name_last)
    else:
        shutil.rmtree(where)


def move_tree(source: Place, target: Place) -> None:
    """Give a folder another name of the same kind, which nothing has."""
    if isinstance(source, S3Place):
        source.rename(place(target))  # type: ignore[arg-type]
    else:
        source.rename(str(target))


def tree_size(where: Place) -> int:
    """Bytes of all that is in a folder."""
    if isinstance(where, S3Place):
        return sum(entry["size"] for entry in where.objects())
    return sum(file.stat().st_size for file in where.rglob("*") if file.is_file())


def at_once(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Call a function that waits for S3 for several items at a time; results in their order."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, items))


def inside(where: Place, name: str) -> Place:
    """What is called `name` in a store.

    Raises
    ------
    StoreError
        If the name, or a link on the way, leads out of the store.
    """
    if not name or {"", ".", ".."} & set(name.split("/")) or re.search(r"[\\\0]", name):
        raise StoreError(f"{name!r} cannot be in a store; needed is the name of a group, such as 'analysis/summary'.")
    found = where / name
    if isinstance(found, Path) and isinstance(where, Path):
        real = os.path.realpath(found)
        if not real.startswith(os.path.realpath(where) + os.sep):
            raise StoreError(
                f"{found} is a link that leads out of the store, to {real}; put a copy of what is there in its place."
            )
    return found


def zarr_store(where: str | Place) -> Any:
    """What Zarr and xarray open a store by: it refuses links out of a folder, and asks S3 with this process's keys."""
    where = place(where)
    return S3Zarr(where) if isinstance(where, S3Place) else FolderZarr(where)


class FolderZarr(LocalStore):
    """A Zarr store in a folder, out of which no link leads."""

    async def _open(self, *, mode: Any = None) -> None:
        self._is_open = True  # a folder that is not there is not made by looking into it

    def __dask_tokenize__(self) -> tuple[str, int]:
        """The folder as it is now."""
        return str(self.root), self.root.stat().st_mtime_ns if self.root.exists() else 0

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        """Value of a key; None if it is absent."""
        inside(self.root, key)
        return await super().get(key, *arguments, **options)

    async def set(self, key: str, value: Any) -> None:
        """Write a value."""
        inside(self.root, key)
        await super().set(key, value)

    async def delete(self, key: str) -> None:
        """Delete a value."""
        inside(self.root, key)
        await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all keys below a prefix."""
        inside(self.root, prefix)
        await super().delete_dir(prefix)


class S3Zarr(ObjectStore):
    """A Zarr store in S3 that travels to workers as its place: they open it with their own credentials."""

    def __init__(self, where: S3Place, *, read_only: bool = False) -> None:
        super().__init__(bucket(where.bucket, where.key), read_only=read_only)
        self.where = where
        self._token = uuid.uuid4().hex

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is sent; the bucket inside would take the keys along."""
        return _opened_again, (self.where, self.read_only)

    def __dask_tokenize__(self) -> tuple[str, str]:
        """New each time: what a name in S3 holds may have changed since it was last opened."""
        return str(self.where), self._token

    def with_read_only(self, read_only: bool = False) -> S3Zarr:
        """The same place, to be written to or not."""
        return _opened_again(self.where, read_only)

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        """Value of a key; None if it is absent."""
        with s3_errors(self.where):
            return await super().get(key, *arguments, **options)

    async def get_partial_values(self, *arguments: Any, **options: Any) -> list[Any]:
        """Parts of values."""
        with s3_errors(self.where):
            return list(await super().get_partial_values(*arguments, **options))

    async def exists(self, key: str) -> bool:
        """Whether there is a key."""
        with s3_errors(self.where):
            return bool(await super().exists(key))

    async def set(self, key: str, value: Any) -> None:
        """Write a value."""
        with s3_errors(self.where):
            await super().set(key, value)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """All keys below a prefix."""
        with s3_errors(self.where):
            async for key in super().list_prefix(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Names directly below a prefix."""
        with s3_errors(self.where):
            async for name in super().list_dir(prefix):
                yield name


def _opened_again(where: S3Place, read_only: bool) -> S3Zarr:
    return S3Zarr(where, read_only=read_only)
