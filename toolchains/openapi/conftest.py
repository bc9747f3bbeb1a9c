"""Shares the fixtures of the main suite."""

from tests.conftest import make_stack

__all__ = ["make_stack"]
