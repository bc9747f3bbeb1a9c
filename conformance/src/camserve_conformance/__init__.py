"""Checks any deployment of camserve against its public contract."""

VERSION = "0.1.0"
