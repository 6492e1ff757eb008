"""Capture files to numbered packets."""

from analyzer.capture.capture import Capture, Position
from analyzer.capture.packet import CaptureError, CaptureFile, Damage, Packet

__all__ = ["Capture", "CaptureError", "CaptureFile", "Damage", "Packet", "Position"]
