"""The list of parts (SBOM, CycloneDX 1.6) of a wheel: itself and every package of its lock, with who asks for whom.

The lock holds for several platforms, and so may name a package twice. The hashes of the files are in the lock, which
lies beside the list; only the wheel's own stands here.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from release.build import Project, ReleaseError, commit_time, version
from release.lock import FOLDER


def parts(wheel: Path, project: Project) -> str:
    """Returns the list of parts of a wheel as a CycloneDX document; raises ReleaseError where its schema refuses it."""
    document = json.dumps(_document(wheel, project), indent=1)
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(document):
        raise ReleaseError(f"the list of parts of {wheel.name}: {wrong}")
    return document


def _document(wheel: Path, project: Project) -> dict[str, Any]:
    us = _component(project.name, version())
    us["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    us["licenses"] = [{"expression": "Apache-2.0"}]
    locked = list(_locked(project.lock))
    references: dict[str, list[str]] = {f"{project.lock} (pyproject.toml)": [us["bom-ref"]]}
    for name, number, _ in locked:
        references.setdefault(name, []).append(_reference(name, number))
    asks: dict[str, set[str]] = {reference: set() for of in references.values() for reference in of}
    for name, number, askers in locked:
        for asker in askers:
            for reference in references.get(asker, ()):
                asks[reference].add(_reference(name, number))
    made = datetime.datetime.fromtimestamp(commit_time(), datetime.UTC)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": made.isoformat().replace("+00:00", "Z"), "component": us},
        "components": [_component(name, number) for name, number, _ in locked],
        "dependencies": [{"ref": reference, "dependsOn": sorted(of)} for reference, of in sorted(asks.items())],
    }


def _component(name: str, number: str) -> dict[str, Any]:
    reference = _reference(name, number)
    return {"type": "library", "bom-ref": reference, "name": name, "version": number, "purl": reference}


def _reference(name: str, number: str) -> str:
    return f"pkg:pypi/{name}@{number}"


def _locked(lock: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yields name, version and askers of each pin; a lock names the askers below the hashes, after `# via`."""
    blocks = re.split(r"\n(?=[a-z0-9])", (FOLDER / f"{lock}.txt").read_text())
    for block in blocks:
        if pin := re.match(r"([a-z0-9-]+)==([^ ;]+)", block):
            said = re.findall(r"^    #(?: via|  ) ?(.*)$", block, re.MULTILINE)
            yield pin[1], pin[2], [asker.strip() for asker in said if asker.strip()]
