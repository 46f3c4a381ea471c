"""The store, its lock and ledger, and the formats of others."""

from .ledger import BlockLedger
from .lock import StoreLock
from .record import Record, file_digest
from .regions import open_dataset, store_errors, write_region
from .store import Store

__all__ = [
    "BlockLedger",
    "Record",
    "Store",
    "StoreLock",
    "file_digest",
    "open_dataset",
    "store_errors",
    "write_region",
]
