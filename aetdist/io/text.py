"""Small files of text, which people write by hand."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError


def read_text(path: str | Path, what: str) -> str:
    """The text of a file in UTF-8, without a byte order mark; `what` it is meant to be, for the message.

    Raises
    ------
    InputError
        If the file is missing, cannot be read, or is no such text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"There is no {what} {path}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}).") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
