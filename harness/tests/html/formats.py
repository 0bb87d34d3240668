"""Reads reports with the readers that others have: JUnit by Jenkins's schema and junitparser, JSON by its schema, KTAP by the
kernel's own parser. Called by ci/report-check.

    python3 formats.py DIR XSD KUNIT     run.json, junit.xml and report.ktap; the schema; tools/testing/kunit of a kernel
"""

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import jsonschema
import junitparser
from lxml import etree

reports, xsd, kunit = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
run = json.loads((reports / "run.json").read_text())
outcomes = [case["outcome"] for case in run["cases"]]
failed = sum(outcomes.count(outcome) for outcome in ("fail", "crash", "timeout"))

schema = json.loads(Path("docs/report.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(schema)
jsonschema.Draft202012Validator(schema).validate(run)
print(f"JSON: {len(run['cases'])} cases, as the schema has it")

etree.XMLSchema(etree.parse(xsd)).assertValid(etree.parse(reports / "junit.xml"))
suites = junitparser.JUnitXml.fromfile(str(reports / "junit.xml"))
counts = (suites.tests, suites.failures, suites.errors)
assert counts == (len(outcomes), failed, outcomes.count("error")), counts
skipped = sum(case.is_skipped for suite in suites for case in suite)
assert skipped == outcomes.count("skip"), skipped
print("JUnit: valid by Jenkins's schema, and junitparser counts the same")

sys.path.insert(0, kunit)
said = io.StringIO()
with redirect_stdout(said):
    # It takes standard output as it is when it is imported.
    import kunit_parser

    root = kunit_parser.parse_run_tests((reports / "report.ktap").read_text().splitlines())


def errors(test):
    return test.counts.errors + sum(errors(inner) for inner in test.subtests)


assert errors(root) == 0, said.getvalue()
names = [test.name for test in root.subtests]
assert names == [f"{case['scenario']}@{case['image']}".replace("#", ":") for case in run["cases"]], names
for test, case in zip(root.subtests, run["cases"]):
    wanted = {"pass": "SUCCESS", "skip": "SKIPPED"}.get(case["outcome"], "FAILURE")
    assert test.status.name == wanted, (test.name, test.status, case["outcome"])
    steps = [inner.name for inner in test.subtests][: len(case["steps"])]
    assert len(steps) == len(case["steps"]), (test.name, steps)
nested = sum(len(inner.subtests) for test in root.subtests for inner in test.subtests)
assert nested > 0, "no step has subtests"
print(f"KTAP: the kernel's parser reads {len(names)} cases and {nested} subtests of steps, and reports no error")
