"""Prints which requirements have a passing test, by group, and which have none.

`python -m tests.requirements RESULTS` reads what a test run wrote (see conftest.py).
"""

import json
import sys
from csv import DictReader
from itertools import groupby
from pathlib import Path

TABLE = Path(__file__).with_name("requirements.tsv")


def report(shown: dict[str, list[str]]) -> list[str]:
    """Lines for each group: how many are shown, which, and which are not (context rows are no software)."""
    with TABLE.open(encoding="utf-8") as lines:
        rows = [row for row in DictReader(lines, delimiter="\t") if row["level"] != "CONTEXT"]
    unknown = set(shown) - {row["id"] for row in rows}
    text = []
    for group, members in groupby(rows, key=lambda row: row["group"]):
        listed = list(members)
        done = [row["id"] for row in listed if row["id"] in shown]
        must = [row["id"] for row in listed if row["level"] == "MUST" and row["id"] not in shown]
        should = [row["id"] for row in listed if row["level"] != "MUST" and row["id"] not in shown]
        text.append(f"{group:2} {len(done)}/{len(listed)}  {' '.join(done)}")
        for level, missing in (("MUST", must), ("SHOULD", should)):
            if missing:
                text.append(f"     no test, {level}: {' '.join(missing)}")
    if unknown:
        text.append(f"marked, but no requirement (or context only): {' '.join(sorted(unknown))}")
    text.append(f"{len(set(shown) - unknown)} of {len(rows)} requirements have a passing test")
    return text


if __name__ == "__main__":
    print("\n".join(report(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
