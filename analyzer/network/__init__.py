"""Captured packets to TCP segments, UDP datagrams, ARP and ICMP errors, under whatever link layer."""

from analyzer.network.decoder import Decoder, tcp_ports
from analyzer.network.link import KNOWN_LINK_TYPES, link_type_name
from analyzer.network.units import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    URG,
    Arp,
    Datagram,
    IcmpError,
    Other,
    Segment,
    Unit,
    address_text,
)

__all__ = [
    "ACK",
    "FIN",
    "KNOWN_LINK_TYPES",
    "PSH",
    "RST",
    "SYN",
    "URG",
    "Arp",
    "Datagram",
    "Decoder",
    "IcmpError",
    "Other",
    "Segment",
    "Unit",
    "address_text",
    "link_type_name",
    "tcp_ports",
]
