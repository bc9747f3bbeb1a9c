"""Where the files that ship with the program lie: in the wheel, or in a checkout beside it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_WHEEL = _PACKAGE / "bundle"
ROOT = _WHEEL if _WHEEL.is_dir() else _PACKAGE.parents[1]

MODELS = ROOT / "models"
ENVOY = ROOT / "envoy"
REFERENCE = ROOT / "docs" / "api"
PLAYGROUND = ROOT / "clients" / "web" / "site"
