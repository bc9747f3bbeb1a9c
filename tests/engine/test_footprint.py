"""Library pages go back to the kernel, and the libraries go on working."""

from __future__ import annotations

import subprocess
import sys

from camserve_server.engine.footprint import clean_mappings

SMAPS = """\
7f0000000000-7f0000010000 r-xp 00000000 08:01 11   /lib/libtorch_cuda.so
Rss:                  64 kB
Anonymous:             0 kB
7f0000010000-7f0000020000 r--p 00010000 08:01 11   /lib/libtorch_cuda.so
Rss:                  64 kB
Anonymous:            64 kB
7f0000020000-7f0000030000 rw-p 00020000 08:01 11   /lib/libtorch_cuda.so
Anonymous:             0 kB
7f0000030000-7f0000040000 r--p 00000000 08:01 12   /lib/locale.archive
Anonymous:             0 kB
7f0000040000-7f0000050000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000050000-7f0000060000 r--p 00000000 08:01 13   /lib dir/libcudart.so.13
Anonymous:             0 kB
"""


PROGRAM = """\
import pathlib, torch
from camserve_server.engine.footprint import release_library_pages

def file_pages_kb():
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("RssFile")), 0)

convolution, picture = torch.nn.Conv2d(3, 8, 3), torch.rand(1, 3, 32, 32)
expected = convolution(picture)
before = file_pages_kb()
release_library_pages()
assert file_pages_kb() <= before / 2
assert torch.equal(convolution(picture), expected)
"""


def test_only_library_pages_that_were_never_written_are_released() -> None:
    assert clean_mappings(SMAPS) == [(0x7F0000000000, 0x7F0000010000), (0x7F0000050000, 0x7F0000060000)]


def test_released_pages_come_back_when_they_are_needed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
