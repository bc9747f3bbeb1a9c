"""The multipart reader under every way of cutting and damaging a body."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camserve_server.base.errors import ApiError
from camserve_server.rpc.multipart_form import MultipartForm

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nshapes\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    b"\x89PNG\r\n--\r\n-b\r\r\n--c\x00\xff\r\n"
    b'--b\r\nContent-Disposition: form-data; name="classify.top_k"\r\n\r\n3\r\n--b--\r\n'
)
IMAGE = b"\x89PNG\r\n--\r\n-b\r\r\n--c\x00\xff"


def read(chunks, content_type="multipart/form-data; boundary=b"):
    form = MultipartForm(content_type)
    image = b"".join(bytes(data) for chunk in chunks for data in form.feed(chunk))
    form.finish()
    return form, image


@given(st.lists(st.integers(0, len(BODY)), max_size=20))
def test_a_body_means_the_same_however_it_is_cut(cuts):
    edges = [0, *sorted(cuts), len(BODY)]
    form, image = read([BODY[start:end] for start, end in pairwise(edges)])
    assert image == IMAGE
    assert (form.media_type, form.file_name) == ("image/png", "a.png")
    assert (form.request.model, form.request.classify.top_k) == ("shapes", 3)


@pytest.mark.parametrize("length", range(0, len(BODY) - 4, 7))
def test_a_body_that_breaks_off_is_refused(length):
    with pytest.raises(ApiError):
        read([BODY[:length]])


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, len(BODY)))
def test_damage_is_refused_or_read_but_never_crashes(junk, position):
    with suppress(ApiError):
        _, image = read([BODY[:position] + junk + BODY[position:]])
        assert len(image) <= len(BODY) + len(junk)


@pytest.mark.parametrize("boundary", ["", "boundary=", "boundary=\xe9", "boundary=" + "x" * 201, 'boundary="a\tb"'])
def test_a_boundary_that_cannot_be_used_is_refused(boundary):
    with pytest.raises(ApiError):
        MultipartForm(f"multipart/form-data; {boundary}")


@pytest.mark.parametrize(
    ("disposition", "data", "told"),
    [
        ('name="file"; filename="a.png"', b"\x89PNG\xff", "`image`"),
        ('name="file"; filename="a.png"', b"a" * 100_000, "`image`"),
        ('name="file"', b"\xff", "not UTF-8"),
        ('name="file"', b"a" * 100_000, "too long"),
    ],
)
def test_a_file_under_another_name_is_told_its_name_and_a_field_what_is_wrong_with_it(disposition, data, told):
    part = b"--b\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + data + b"\r\n--b--\r\n"
    with pytest.raises(ApiError, match=told):
        read([part])
