"""``matrix.junit.xml``: the cells as test cases in JUnit's XML, as Jenkins and GitLab read it."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from matrix.report.exports.cases import Case
from matrix.report.material import Material
from matrix.report.table import grouped
from matrix.untrusted.text import visible

NAME_CHARS = 300


def files(material: Material, listed: list[Case]) -> Iterator[tuple[str, bytes]]:
    """Yield ``matrix.junit.xml``, a suite for each quantizer under each scheme."""
    result = material.result
    profile = visible(result.profile, NAME_CHARS)
    root = ET.Element("testsuites", {"name": f"quantization, {profile}", **_totals(listed)})
    for name, own in grouped(listed, lambda case: case.suite).items():
        about = {
            "name": name,
            **_totals(own),
            "skipped": str(sum(case.state == "skipped" for case in own)),
            "timestamp": visible(result.finished, NAME_CHARS),
        }
        suite = ET.SubElement(root, "testsuite", about)
        for case in own:
            _add_case(suite, case)
    ET.indent(root, " ")
    yield "matrix.junit.xml", ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _totals(listed: list[Case]) -> dict[str, str]:
    failures = sum(case.state == "failed" for case in listed)
    seconds = sum(case.seconds for case in listed)
    return {
        "tests": str(len(listed)), "failures": str(failures), "errors": "0",
        "time": f"{seconds:.3f}",
    }  # fmt: skip


def _add_case(suite: ET.Element, case: Case) -> None:
    element = ET.SubElement(
        suite, "testcase", name=case.name, classname=case.suite, time=f"{case.seconds:.3f}"
    )
    text = "\n".join(case.details)
    match case.state:
        case "failed":
            failure = ET.SubElement(element, "failure", type=case.verdict, message=case.message)
            failure.text = text
        case "skipped":
            why = ": ".join(filter(None, [case.verdict, case.message]))
            ET.SubElement(element, "skipped", message=why)
        case "passed" if text:
            ET.SubElement(element, "system-out").text = text
