"""Buckets of S3 and of servers that speak like it: how they are opened, and their errors in one line."""

from __future__ import annotations

import configparser
import contextlib
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, StoreError, redacted

if TYPE_CHECKING:
    from obstore.store import S3Store

#: What the profiles of AWS call what obstore needs, and the variables that come before them.
_FROM_PROFILE = {
    "aws_access_key_id": ("access_key_id", ("AWS_ACCESS_KEY_ID",)),
    "aws_secret_access_key": ("secret_access_key", ("AWS_ACCESS_KEY_ID",)),  # a pair comes from one place
    "aws_session_token": ("session_token", ("AWS_ACCESS_KEY_ID",)),
    "region": ("region", ("AWS_REGION", "AWS_DEFAULT_REGION")),
}
_REFUSALS = ("AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
#: One chunk may take long through a slow line.
_TIMEOUTS = {"timeout": "600s", "connect_timeout": "10s"}
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, here and on every worker (AWS_ENDPOINT_URL for a "
    "server other than Amazon's, AWS_REGION for the bucket's region, AWS_SKIP_SIGNATURE=true for public data)"
)


def obstore() -> Any:
    """The package that speaks to S3.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        import obstore.store
    except ImportError:
        raise InputError(
            "A store in S3 needs obstore, which is not installed: pip install 'aetdist[s3]', here and on every worker."
        ) from None
    return obstore


def bucket(name: str, prefix: str | None = None) -> S3Store:
    """A bucket, or what lies below `prefix` in it, opened as the environment or the AWS profile of this process says.

    Raises
    ------
    InputError
        If obstore is not installed, or the profile is not there.
    """
    return _opened(name, prefix, tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))


@functools.lru_cache(maxsize=16)
def _opened(name: str, prefix: str | None, environment: tuple[tuple[str, str], ...]) -> S3Store:
    variables = dict(environment)
    profile = _profile(variables)
    settings: dict[str, Any] = {
        ours: profile[theirs]
        for theirs, (ours, before) in _FROM_PROFILE.items()
        if theirs in profile and not any(variable in variables for variable in before)
    }
    options: dict[str, Any] = dict(_TIMEOUTS)
    endpoint = _endpoint(variables) or profile.get("endpoint_url")
    if endpoint:
        settings["endpoint"] = endpoint.rstrip("/")
        options["allow_http"] = endpoint.startswith("http://")  # who names such a server means it
    opened: S3Store = obstore().store.S3Store(name, prefix=prefix, **settings, client_options=options)
    return opened


def _endpoint(variables: Any) -> str | None:
    return next((variables[name] for name in _ENDPOINTS if variables.get(name)), None)


def _profile(variables: dict[str, str]) -> dict[str, str]:
    """What ~/.aws/config and ~/.aws/credentials say of the profile; obstore does not read them."""
    name = variables.get("AWS_PROFILE") or "default"
    files = {
        variables.get("AWS_CONFIG_FILE") or "~/.aws/config": name if name == "default" else f"profile {name}",
        variables.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials": name,
    }
    found: dict[str, str] = {}
    for file, section in files.items():
        parser = configparser.RawConfigParser()
        try:
            parser.read(Path(file).expanduser(), encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError) as error:  # which quote lines: they may be secrets
            raise InputError(
                f"{file} cannot be read ({type(error).__name__}); mend it, or unset AWS_PROFILE."
            ) from None
        if parser.has_section(section):
            found |= dict(parser[section])
    if "AWS_PROFILE" in variables and not found:
        raise InputError(
            f"There is no AWS profile {name!r} in {' or '.join(files)}; name another, or unset AWS_PROFILE."
        )
    return found


@contextlib.contextmanager
def s3_errors(where: object) -> Iterator[None]:
    """Turn what obstore raises into a one-line `StoreError` without the server's answer, which may quote keys.

    An object that is not there stays a FileNotFoundError, as in a folder; a bucket that is not there does not.
    """
    try:
        yield
    except Exception as error:
        missing = isinstance(error, FileNotFoundError)
        if not (type(error).__module__.startswith("obstore") or (missing and "NoSuchBucket" in str(error))):
            raise
        raise StoreError(_told(error, where)) from None


def _told(error: Exception, where: object) -> str:
    kind, text = type(error).__name__, str(error)
    found = re.search(r"<Code>(\w+)</Code>", text)
    code = found.group(1) if found else None
    server = redacted(_endpoint(os.environ) or "Amazon S3")
    if code == "NoSuchBucket":
        return f"There is no bucket for {where} at {server}; make it, or mend the name."
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or code in _REFUSALS:  # a list has no kind for it
        return f"{server} refused {where} ({code or 'no right to do that'}): {_CREDENTIALS}."
    if "169.254.169.254" in text or "credential" in text.lower():
        return f"There are no credentials for {where}: {_CREDENTIALS}."
    if "incorrectly configured region" in text:
        return f"The bucket of {where} is in another region; set AWS_REGION to it, here and on every worker."
    if "error sending request" in text:
        return f"{server} cannot be reached for {where}; check AWS_ENDPOINT_URL and the network, and run again."
    if code == "NotImplemented":
        return f"{server} knows no conditional writes (If-None-Match), without which {where} cannot be locked."
    said = code or redacted(" ".join(text.partition("\n")[0].split()))[:160]
    return f"{server} failed at {where} ({kind}: {said}); what is finished is kept, run again."
