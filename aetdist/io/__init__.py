"""The store, its lock and ledger, and the formats of others."""

from .atoms import read_atoms
from .groups import newest
from .inventory import describe_groups
from .ledger import BlockLedger
from .lock import StoreLock
from .mrc_export import write_mrc
from .record import Record
from .regions import open_dataset, require_record, store_errors, write_region
from .resumable import begun, write_blocks
from .store import Store
from .volumes import read_volume
from .xyz import read_xyz, write_xyz

__all__ = [
    "BlockLedger",
    "Record",
    "Store",
    "StoreLock",
    "begun",
    "describe_groups",
    "newest",
    "open_dataset",
    "read_atoms",
    "read_volume",
    "read_xyz",
    "require_record",
    "store_errors",
    "write_blocks",
    "write_mrc",
    "write_region",
    "write_xyz",
]
