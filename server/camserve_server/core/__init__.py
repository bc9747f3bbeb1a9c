"""The rules of the service, on plain dataclasses."""
