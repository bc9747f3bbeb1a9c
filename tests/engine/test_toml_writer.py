from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.tiny import write_model

from camserve_server.base import bundle
from camserve_server.engine.manifest import Manifest, read_manifest
from camserve_server.engine.toml_writer import to_toml

WORDS = st.text(st.characters(exclude_categories=["Cs"]))
# TOML's integers have 64 bits, and its tables no value that is absent.
PLAIN = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), WORDS
)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=10)


@given(st.dictionaries(WORDS, VALUES))
def test_what_is_written_reads_as_it_was(document):
    assert tomllib.loads(to_toml(document)) == document


def test_what_is_absent_is_left_out():
    assert tomllib.loads(to_toml({"a": None, "b": 1, "c": {"d": None}})) == {"b": 1, "c": {}}


def test_what_toml_does_not_have_is_refused():
    with pytest.raises(ValueError, match="bytes has no place"):
        to_toml({"a": [b""]})


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_manifest_that_is_written_is_the_same(version):
    manifest = read_manifest(bundle.MODELS / "shapes" / version)
    text = to_toml(manifest.model_dump(exclude_unset=True))
    assert Manifest.model_validate(tomllib.loads(text)) == manifest


def test_an_unstated_default_is_not_stated(tmp_path: Path):
    manifest = read_manifest(write_model(tmp_path))
    assert "calibration" not in to_toml(manifest.model_dump(exclude_unset=True))
