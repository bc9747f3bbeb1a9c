"""Reports of a run: for people, as JSON and as JUnit XML."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from textwrap import wrap
from typing import Any
from xml.etree import ElementTree

from camserve_conformance import VERSION
from camserve_conformance.answer import Answer
from camserve_conformance.options import Options
from camserve_conformance.outcomes import Outcome, State
from camserve_conformance.runner import Report

_SHOWN_CHARACTERS = 1500
_MASK = "***"
_SECRETS = re.compile(
    r"eyJ[\w-]+\.[\w-]*\.[\w-]*|whsec_[A-Za-z0-9+/=]+|(?<=token=)[^&\s\"]+|(?<=Basic )\S+"
    r"|(?<=\"access_token\": \")[^\"]+|(?<=client_secret=)[^&\s]+"
)
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd]")
_VERDICTS = {
    0: "the deployment conforms",
    1: "the deployment violates the contract",
    2: "too little could be run to say",
}


def mask(options: Options) -> Callable[[str], str]:
    """Returns what takes a run's secrets, and whatever looks like one, out of a text."""

    def masked(text: str) -> str:
        for secret in options.secrets:
            text = text.replace(secret, _MASK)
        return _SECRETS.sub(_MASK, text)

    return masked


def as_text(report: Report) -> str:
    """Returns the report for people; secrets are masked."""
    return mask(report.options)("\n".join(_lines(report)) + "\n")


def _lines(report: Report) -> Iterator[str]:
    options = report.options
    yield f"camserve conformance {VERSION}: {options.url}" + (f", gRPC {options.grpc}" if options.grpc else "")
    yield ""
    counts: dict[str, Counter[State]] = {}
    for outcome in report.outcomes:
        counts.setdefault(outcome.check.section.title, Counter())[outcome.state] += 1
    width = max(map(len, counts))
    for title, states in counts.items():
        yield f"{title:<{width}}  " + ", ".join(f"{states[state]} {state}" for state in State if states[state])
    for state in (State.VIOLATED, State.BLOCKED):
        for outcome in report.outcomes:
            if outcome.state is state:
                yield from _about(outcome)
    yield from _skipped(report)
    if report.left:
        yield from ["", f"LEFT BEHIND, since it could not be removed: {', '.join(report.left)}"]
    totals = ", ".join(f"{report.count(state)} {state}" for state in State)
    yield from ["", f"{totals} in {report.took_s:.1f} s: {_VERDICTS[report.exit_code]}"]


def _skipped(report: Report) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for outcome in report.outcomes:
        if outcome.state is State.SKIPPED:
            names.setdefault(outcome.why, []).append(outcome.check.name)
    for why, skipped in names.items():
        yield from ["", f"SKIPPED   {why}"]
        yield from wrap(", ".join(skipped), 120, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _about(outcome: Outcome) -> Iterator[str]:
    check = outcome.check
    if outcome.state is not State.VIOLATED:
        yield f"{outcome.state.upper():<9} {check.name}: {outcome.why}"
        return
    yield from ["", f"VIOLATED  {check.name}  ({check.section.title})"]
    yield f"  sentence    {check.sentence}"
    yield f"  problem     {outcome.why}"
    if outcome.answer:
        yield from _exchange(outcome.answer)
        yield f"  request id  {outcome.answer.request_id or '(none)'}"


def _exchange(answer: Answer) -> Iterator[str]:
    margin = " " * 14
    yield f"  request     {answer.sent.line}"
    yield from (f"{margin}{name}: {value}" for name, value in answer.sent.headers.items())
    if answer.sent.body:
        yield margin + answer.sent.body[:_SHOWN_CHARACTERS]
    yield f"  answer      {answer.status} {answer.message}".rstrip()
    yield from (f"{margin}{name}: {value}" for name, value in answer.headers.items())
    yield from (margin + line for line in _content(answer)[:_SHOWN_CHARACTERS].splitlines())


def _content(answer: Answer) -> str:
    if answer.body is not None:
        return json.dumps(answer.body, ensure_ascii=False)
    if answer.details:
        return json.dumps(answer.details, ensure_ascii=False)
    return answer.content.decode() if answer.content.isascii() else f"({len(answer.content)} bytes)"


def as_json(report: Report) -> str:
    """Returns the report as a JSON document; secrets are masked."""
    masked = mask(report.options)
    document = {
        "kit": VERSION,
        "url": report.options.url,
        "grpc": report.options.grpc,
        "took_s": round(report.took_s, 3),
        "verdict": _VERDICTS[report.exit_code],
        "exit_code": report.exit_code,
        "counts": {str(state): report.count(state) for state in State},
        "left_behind": list(report.left),
        "checks": [_as_document(outcome, masked) for outcome in report.outcomes],
    }
    return json.dumps(document, indent=1) + "\n"


def _as_document(outcome: Outcome, masked: Callable[[str], str]) -> dict[str, Any]:
    check = outcome.check
    document: dict[str, Any] = {
        "name": check.name,
        "section": check.section.title,
        "sentence": check.sentence,
        "state": str(outcome.state),
        "took_s": round(outcome.took_s, 3),
    }
    if outcome.why:
        document["why"] = masked(outcome.why)
    if answer := outcome.answer:
        document["request"] = {
            "line": masked(answer.sent.line),
            "headers": {name: masked(value) for name, value in answer.sent.headers.items()},
            "body": masked(answer.sent.body[:_SHOWN_CHARACTERS]),
        }
        document["answer"] = {
            "status": answer.status,
            "headers": {name: masked(value) for name, value in answer.headers.items()},
            "content": masked(_content(answer)[:_SHOWN_CHARACTERS]),
        }
        document["request_id"] = answer.request_id
    return document


def as_junit(report: Report) -> str:
    """Returns the report as JUnit XML: a violation is a failure, what could not be run an error; secrets are masked."""
    masked = mask(report.options)
    root = ElementTree.Element("testsuites")
    suites: dict[str, ElementTree.Element] = {}
    for outcome in report.outcomes:
        title = outcome.check.section.title
        if title not in suites:
            suites[title] = ElementTree.SubElement(root, "testsuite", name=title)
        suite = suites[title]
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=outcome.check.section.name,
            name=outcome.check.name,
            time=f"{outcome.took_s:.3f}",
        )
        kind = {State.VIOLATED: "failure", State.BLOCKED: "error", State.SKIPPED: "skipped"}.get(outcome.state)
        if kind:
            text = _NOT_XML.sub("?", masked("\n".join(_about(outcome)).strip()))
            about = ElementTree.SubElement(case, kind, message=_NOT_XML.sub("?", masked(outcome.why)))
            about.text = text
    for suite in suites.values():
        for name, tag in {
            "tests": "testcase",
            "failures": "*/failure",
            "errors": "*/error",
            "skipped": "*/skipped",
        }.items():
            suite.set(name, str(len(suite.findall(tag))))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
