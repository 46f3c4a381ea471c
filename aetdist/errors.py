"""What went wrong, in one line: what came, what is needed, what to do."""

import re
from typing import Any


class AetdistError(Exception):
    """An error the user can mend; the command line prints its one line and no traceback. No secret stands in it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*(redacted(text) if isinstance(text, str) else text for text in arguments))


class InputError(AetdistError, ValueError):
    """An input or an option that cannot be used as it is."""


class StoreError(AetdistError):
    """A store that cannot be read or written as asked."""


class StoreLockedError(StoreError):
    """Another process is writing to the store; the message names its host and pid."""


class ClusterError(AetdistError):
    """Workers or their scheduler are gone; what was finished is kept."""


class CapacityError(MemoryError, AetdistError):  # in this order tblib can bring it back from a worker
    """Work that would not fit; the message says how much it needs and which option makes it fit."""


class AetdistWarning(UserWarning):
    """Something looks wrong but may be meant; the work goes on."""


_SECRET = r"[\w-]*(?:secret|token|passw|credential|api_?key|access_?key)[\w-]*"
_SECRETS = (
    (re.compile(r"(\w:/+)[^\s'\"]*@"), r"\1***@"),  # scheme://key:secret@host
    (re.compile(r"(\w:/+[^\s'\"?]*\?)[^\s'\"]+"), r"\1***"),  # what is asked of a host may be signed
    (re.compile(rf"({_SECRET}=|['\"]{_SECRET}['\"]: *)(['\"]?)[^\s'\",}}]+", re.IGNORECASE), r"\1\2***"),
)


def redacted(text: str) -> str:
    """`text` without secrets: names, passwords and signatures in URLs, and what is assigned to a token or a key."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
