"""What leaves the library as files: plain CoAP for Wireshark, firmware images, tables."""

from analyzer.export.csvtable import write_csv
from analyzer.export.decrypted import Decrypted
from analyzer.export.firmware import FirmwareCollector, FirmwareImage, collect_images
from analyzer.export.imagefiles import ExportError, save_images
from analyzer.export.plain import PlainWriter, Written, write_plain

__all__ = [
    "Decrypted",
    "ExportError",
    "FirmwareCollector",
    "FirmwareImage",
    "PlainWriter",
    "Written",
    "collect_images",
    "save_images",
    "write_csv",
    "write_plain",
]
