"""Every snippet of every page runs, those of a page one after the other, against the running service."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.snippets import ROOT, blocks, pages, to_run
from toolchains.docs.runs import run_page

PAGES = {str(page.relative_to(ROOT)): page for page in pages() if to_run(page)}
# They change which version answers, and so what the others show.
ALONE = ("docs/model-versions.md", "docs/how-to/change-versions-safely.md")
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ALONE])
def test_the_snippets_of_a_page_run(name: str, tmp_path: Path, stack) -> None:
    run_page(to_run(PAGES[name]), tmp_path, stack)


@pytest.mark.parametrize("name", [name for name in PAGES if name in ALONE])
def test_the_snippets_of_a_page_that_changes_routes_run(name: str, tmp_path: Path, make_stack) -> None:
    run_page(to_run(PAGES[name]), tmp_path, make_stack())


def written(folder: Path, text: str) -> list:
    page = folder / "page.md"
    page.write_text(text)
    return blocks(page)


def test_every_language_runs_in_the_order_of_the_page(tmp_path, stack):
    page = """
```sh
said=$(cam models | grep -c shapes) || true
test -e models/shapes/2/golden/star.png
```

```python
open("python.txt", "w").write("here")
```

```js
import { readFileSync, writeFileSync } from "node:fs";
writeFileSync("js.txt", readFileSync("python.txt"));
```

```go
package main

import "os"

func main() {
	data, _ := os.ReadFile("js.txt")
	_ = os.WriteFile("go.txt", data, 0o600)
}
```

```java
import java.nio.file.*;

class Copy {
    public static void main(String[] arguments) throws Exception {
        Files.copy(Path.of("go.txt"), Path.of("java.txt"));
    }
}
```

```sh
cat java.txt; echo ", $said, http://127.0.0.1:8080"
```

It prints:

```text
here, …, http://127.0.0.1:8080
```
"""
    run_page(written(tmp_path, page), tmp_path, stack)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```sh\necho well\nfalse\n```\n", "false\n\nfailed:\nwell"),
        ("```sh\necho $unset\n```\n", "unset"),
        ("```sh\ncurl -s http://127.0.0.1:8080/v1/models\n```\n", "failed"),
        ("```sh\nsaid=here\n```\n\n```python\nraise SystemExit('not well')\n```\n", "not well"),
        ("```sh\necho there\n```\n\nprints:\n\n```text\nhere\n```\n", "the page shows\nhere\n\nand not\nthere"),
    ],
)
def test_a_snippet_that_fails_or_prints_something_else_is_told(text, why, tmp_path, stack):
    with pytest.raises(pytest.fail.Exception, match=why):
        run_page(written(tmp_path, text), tmp_path, stack)
