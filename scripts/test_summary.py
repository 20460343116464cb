"""Adds up ctest's JUnit files: lists what failed and was skipped, then 'N passed, N failed[, N skipped]'.

A test that did not run because its program is missing counts as failed, and so does a file that is
absent or holds no test: a run that verified nothing must not look like a good one.
"""
import argparse
import sys
import xml.etree.ElementTree as ElementTree


def classify(case):
    """'passed', 'failed' or 'skipped'. ctest says 'notrun' both for a skip and for a missing program."""
    status = case.get("status")
    if status == "run":
        return "passed" if case.find("failure") is None else "failed"
    skipped = case.find("skipped")
    # A skip that the test itself reported (SKIP_RETURN_CODE, SKIP_REGULAR_EXPRESSION) or a disabled one.
    if status == "disabled" or (skipped is not None and "SKIP_" in skipped.get("message", "")):
        return "skipped"
    return "failed"


def read(path):
    """[(name, outcome)] of one file; a file that cannot be used is one failure."""
    try:
        cases = ElementTree.parse(path).getroot().iter("testcase")
        outcomes = [(case.get("name", "?"), classify(case)) for case in cases]
    except (OSError, ElementTree.ParseError) as error:
        return [(f"{path}: {error}", "failed")]
    return outcomes or [(f"{path}: no test ran", "failed")]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--label", help="print 'LABEL: N of N tests passed' as the last line instead")
    args = parser.parse_args()
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for path in args.files:
        for name, outcome in read(path):
            counts[outcome] += 1
            if outcome != "passed":
                print(f"{outcome}: {name}")
    if args.label:
        skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
        print(f"{args.label}: {counts['passed']} of {sum(counts.values())} tests passed{skipped}")
        return 1 if counts["failed"] or not counts["passed"] else 0
    line = f"{counts['passed']} passed, {counts['failed']} failed"
    if counts["skipped"]:
        line += f", {counts['skipped']} skipped"
    print(line)
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
