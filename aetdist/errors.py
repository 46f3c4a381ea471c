"""What went wrong, in one line: what came, what is needed, what to do."""

import re


class AetdistError(Exception):
    """An error the user can mend; the command line prints its one line and no traceback."""


class InputError(AetdistError, ValueError):
    """An input or an option that cannot be used as it is."""


class StoreError(AetdistError):
    """A store that cannot be read or written as asked."""


class StoreLockedError(StoreError):
    """Another process is writing to the store; the message names its host and pid."""


class CapacityError(MemoryError, AetdistError):  # in this order tblib can bring it back from a worker
    """Work that would not fit; the message says how much it needs and which option makes it fit."""


class AetdistWarning(UserWarning):
    """Something looks wrong but may be meant; the work goes on."""


def redacted(text: str) -> str:
    """`text` without the names and passwords that stand in its URLs, ``scheme://key:secret@host``."""
    return re.sub(r"(\w:/+)[^\s'\"]*@", r"\1***@", text)
