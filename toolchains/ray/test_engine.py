"""The engine's own tests, with its models on a cluster, and the same answers to the last bit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from tests.engine.test_engine import (
    HeldEngine,
    picture,
    predict,
    running,
    settle,
)
from tests.engine.test_engine import (
    test_a_picture_gets_probabilities_and_no_map_unasked as test_a_picture_gets_probabilities_and_no_map_unasked,
)
from tests.engine.tiny import write_model

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.engine import Engine, Explain

from toolchains.ray.conftest import Nodes, ray_engine

pytestmark = pytest.mark.asyncio(loop_scope="module")
