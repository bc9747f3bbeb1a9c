from __future__ import annotations

import pytest
from tests.engine.images import shared

from camserve_server.engine.formats.source import ExtendedFile, PictureFile


@pytest.mark.parametrize("offset", range(16))
def test_extended_file_reads_as_head_middle_and_tail(offset: int) -> None:
    whole = b"HEADmiddleTAIL"
    with shared(b"headmiddle") as buffer:
        file = ExtendedFile(PictureFile(buffer.fd, buffer.size), b"HEAD", b"TAIL")
        assert file.size == len(whole)
        for n_bytes in range(16):
            file.seek(offset)
            assert file.read(n_bytes) == file.at(offset, n_bytes) == whole[offset : offset + n_bytes]
            assert file.tell() == offset + len(whole[offset : offset + n_bytes])
