"""Captures of other people's traffic, thousands of them, and what this analyzer makes of them beside tshark."""
