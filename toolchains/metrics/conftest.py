"""Shares the running stack with the tests of the main suite."""

from tests.conftest import stack

__all__ = ["stack"]
