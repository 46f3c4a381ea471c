"""Small files of foreign formats, written by the formats' own libraries or as the microscopes' programs do.

RosettaSciIO writes neither DM nor SER nor Velox's EMD, so these files come from a few lines of their own.
"""

from __future__ import annotations

import json
import struct

import h5py
import mrcfile
import numpy as np
import scipy.io
import tifffile


def write_hdf5(path, stack):
    with h5py.File(path, "w") as file:
        file.create_dataset("series/images", data=stack, chunks=(1, *stack.shape[1:]), compression="gzip", shuffle=True)


def write_mat73(path, stack):
    """As MATLAB does: a user block, axes in reverse (MATLAB's (y, x, tilt) becomes (tilt, x, y)), class attributes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        data = file.create_dataset("images", data=np.swapaxes(stack, 1, 2))
        data.attrs["MATLAB_class"] = np.bytes_("single")
        file.create_group("#refs#").create_dataset("a", data=np.zeros(3))
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def write_mat5(compressed):
    def write(path, stack):
        other = {"angles": np.arange(3.0), "note": "text", "images": np.moveaxis(stack, 0, 2), "end": np.ones((2, 2))}
        scipy.io.savemat(path, other, do_compression=compressed)

    return write


def write_mrc(path, stack):
    with mrcfile.new(path) as file:
        file.set_data(stack)
        file.set_image_stack()
        file.set_extended_header(np.zeros(100, dtype="S1"))


def write_tiff(**options):
    return lambda path, stack: tifffile.imwrite(path, stack, **options)


def write_tiff_pages(path, stack):
    with tifffile.TiffWriter(path) as file:
        for image in stack:
            file.write(image, metadata=None, contiguous=False)


#: End of the name, writer (path, stack), dataset.
FORMATS = {
    "hdf5": (".h5", write_hdf5, "series/images"),
    "mat73": (".mat", write_mat73, "images"),
    "mat5": (".mat", write_mat5(False), "images"),
    "mat5-compressed": (".mat", write_mat5(True), "images"),
    "mrc": (".mrc", write_mrc, None),
    "tiff": (".tif", write_tiff(photometric="minisblack"), None),
    "tiff-deflate": (".tif", write_tiff(photometric="minisblack", compression="zlib"), None),
    "tiff-big-endian": (".tif", write_tiff(photometric="minisblack", byteorder=">"), None),
    "bigtiff": (".btf", write_tiff(photometric="minisblack", bigtiff=True), None),
    "imagej": (".tif", write_tiff(imagej=True), None),
    "tiff-pages": (".tiff", write_tiff_pages, None),
    "npy": (".npy", np.save, None),
    "npy-fortran": (".npy", lambda path, stack: np.save(path, np.asfortranarray(stack)), None),
    "npz": (".npz", lambda path, stack: np.savez(path, a=np.zeros(3), images=stack), "images"),
    "npz-compressed": (".npz", lambda path, stack: np.savez_compressed(path, images=stack, a=np.zeros(3)), "images"),
}

DM_TYPES = {"int16": (1, 2), "float32": (2, 6), "uint8": (6, 10), "int32": (7, 3), "uint16": (10, 4)}


def write_dm(path, array, pixel=(0.035, 0.035), unit="nm", tags=None):
    """A DM3 or DM4 file (by its name) of images (..., y, x) with pixels (y, x) and the tags of the image."""
    version = int(path.suffix[-1])
    long = "q" if version == 4 else "i"
    code, element = DM_TYPES[str(array.dtype)]

    def number(value):
        if isinstance(value, float):
            return struct.pack(f">{long}", 7), struct.pack("<d", value)
        return struct.pack(f">{long}", 3), struct.pack("<i", value)

    def data(value):
        if isinstance(value, str):
            info = struct.pack(f">{long}{long}{long}", 20, 4, len(value)), value.encode("utf-16-le")
            return b"%%%%" + struct.pack(f">{long}", 3) + b"".join(info)
        if isinstance(value, np.ndarray):
            info = struct.pack(f">{long}{long}{long}", 20, element, value.size)
            return b"%%%%" + struct.pack(f">{long}", 3) + info + value.tobytes()
        return b"%%%%" + struct.pack(f">{long}", 1) + b"".join(number(value))

    def group(content):
        entries = list(content.items()) if isinstance(content, dict) else [("", value) for value in content]
        return struct.pack(f">bb{long}", 1, 0, len(entries)) + b"".join(tag(*entry) for entry in entries)

    def tag(name, value):
        is_group = isinstance(value, (dict, list))
        body = group(value) if is_group else data(value)
        size = struct.pack(">q", len(body)) if version == 4 else b""
        return bytes([20 if is_group else 21]) + struct.pack(">h", len(name)) + name.encode() + size + body

    y, x = pixel
    dimensions = [{"Origin": 0.0, "Scale": s, "Units": u} for s, u in [(x, unit), (y, unit), *[(1.0, "")] * 2]]
    image = {
        "ImageData": {
            "Calibrations": {
                "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""},
                "Dimension": dimensions[: array.ndim],
            },
            "Data": np.ascontiguousarray(array),
            "DataType": code,
            "Dimensions": list(array.shape[::-1]),
            "PixelDepth": array.itemsize,
        },
        "ImageTags": tags or {},
        "Name": "HAADF",
    }
    root = group({"ImageList": [image]})
    path.write_bytes(struct.pack(f">i{long}i", version, len(root), 1) + root + bytes(8))
    return path


def write_ser(path, images, pixel=0.035e-9, spectra=False):
    """A SER file of images (n, y, x) with square pixels in m."""
    code = {"uint16": 2, "int16": 5, "int32": 6, "float32": 7}[str(images.dtype)]
    n, ny, nx = images.shape
    head = b"II" + struct.pack("<HHIIII", 0x0197, 0x0210, 0x4120 if spectra else 0x4122, 0x4152, n, n)
    body, places = b"", []
    dimension = struct.pack("<IddiII", n, 0.0, 1.0, 0, 0, 0)
    start = len(head) + 8 + len(dimension)
    for image in images:
        places.append(start + len(body))
        body += struct.pack("<ddiddiHII", 0.0, pixel, 0, 0.0, pixel, 0, code, nx, ny) + image[::-1].tobytes()
        body += struct.pack("<HHI", 0x4152, 0, 0)
    table = struct.pack(f"<{n}I", *places) + struct.pack(f"<{n}I", *places)
    path.write_bytes(head + struct.pack("<II", start + len(body), 1) + dimension + body + table)
    return path


def write_velox(path, images, pixel=3.5e-11, tilt=0.0, detectors=("HAADF",)):
    """An EMD file as Velox writes it: (y, x, frame), pixels in m, angles in radians."""
    said = {
        "Core": {"MetadataDefinitionVersion": "7.9"},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1500000000"}},
        "Optics": {"AccelerationVoltage": "300000", "CameraLength": "0.115", "BeamConvergence": "0.025"},
        "Stage": {"AlphaTilt": str(np.deg2rad(tilt)), "BetaTilt": "0", "Position": {"x": "0", "y": "0", "z": "0"}},
        "Scan": {"DwellTime": "2e-06", "FrameTime": "1.5"},
        "CustomProperties": {"StemMagnification": {"value": "5000000"}},
        "Instrument": {"InstrumentClass": "Titan"},
        "BinaryResult": {
            "PixelSize": {"width": str(pixel), "height": str(pixel)},
            "Offset": {"x": "0", "y": "0"},
            "PixelUnitX": "m",
            "PixelUnitY": "m",
            "DetectorIndex": "0",
        },
    }
    with h5py.File(path, "w") as file:
        version = {"format": "Velox", "version": "11"}
        file["Version"] = np.array([json.dumps(version).encode()])
        for k, detector in enumerate(detectors):
            group = file.create_group(f"Data/Image/{k:032x}")
            said["Detectors"] = {"Detector-0": {"DetectorName": detector}}
            ny, nx = images.shape[1:]
            group.create_dataset("Data", data=np.moveaxis(images, 0, 2), chunks=(ny, nx, 1))
            text = np.frombuffer(json.dumps(said).encode(), np.uint8)[:, None]
            group["Metadata"] = np.repeat(text, len(images), axis=1)
    return path


def write_ncem(path, images, pixel=0.35):
    """An EMD file of the NCEM's: (tilt, y, x) with a vector for each axis."""
    with h5py.File(path, "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group("data/series")
        group.attrs["emd_group_type"] = 1
        group["data"] = images
        for k, (n, name, step, unit) in enumerate(
            zip(images.shape, ("angle", "y", "x"), (2.0, pixel, pixel), ("[deg]", "[A]", "[A]"), strict=True), start=1
        ):
            group[f"dim{k}"] = np.arange(n) * step
            group[f"dim{k}"].attrs["name"], group[f"dim{k}"].attrs["units"] = name, unit
    return path


#: Name and writer (path, images).
MICROSCOPES = {
    "dm3": ("a.dm3", write_dm),
    "dm4": ("a.dm4", write_dm),
    "ser": ("a.ser", write_ser),
    "velox": ("a.emd", write_velox),
    "ncem": ("a.emd", write_ncem),
}
