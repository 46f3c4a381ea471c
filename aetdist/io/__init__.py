"""The store, its lock and ledger, and the formats of others."""

from .atoms import read_atoms
from .csv_atoms import read_csv, write_csv
from .exports import check_export, write_export
from .groups import newest
from .inventory import describe_groups
from .ledger import BlockLedger
from .lock import StoreLock
from .mrc_export import write_mrc
from .ome_zarr import write_ome_zarr
from .record import Record
from .regions import open_dataset, require_record, store_errors, write_region
from .resumable import begun, write_blocks
from .store import Store
from .tiff_export import write_tiff
from .volumes import read_volume
from .xyz import read_xyz, write_xyz

__all__ = [
    "BlockLedger",
    "Record",
    "Store",
    "StoreLock",
    "begun",
    "check_export",
    "describe_groups",
    "newest",
    "open_dataset",
    "read_atoms",
    "read_csv",
    "read_volume",
    "read_xyz",
    "require_record",
    "store_errors",
    "write_blocks",
    "write_csv",
    "write_export",
    "write_mrc",
    "write_ome_zarr",
    "write_region",
    "write_tiff",
    "write_xyz",
]
