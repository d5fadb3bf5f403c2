"""Which requirements a passing test shows, and which none does.

Run the tests with RENKEI_REQUIREMENTS=results.json, then `python -m tests.requirements results.json`.
The list is requirements.tsv: number, level (MUST is stated by the sources, SHOULD is implied by them or
set later, CONTEXT is no software and not counted), group, topic, and for the few that no test of ours can
show the reason why.
"""

import json
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path


@dataclass(frozen=True)
class Requirement:
    """One line of the list. `cannot` is why no test can show it, or ""."""

    id: str
    level: str
    group: str
    topic: str
    cannot: str


def requirements() -> tuple[Requirement, ...]:
    """All requirements, in the order of their numbers."""
    text = Path(__file__).with_suffix(".tsv").read_text(encoding="utf-8")
    return tuple(Requirement(*line.split("\t")) for line in text.splitlines()[1:])


def report(shown: set[str]) -> list[str]:
    """One line per group for the requirements in `shown`, one for the whole, and why each MUST is missing.

    Raises ValueError where a requirement is shown of which the list says that it cannot be.
    """
    counted = [each for each in requirements() if each.level != "CONTEXT"]
    if wrong := [each.id for each in counted if each.cannot and each.id in shown]:
        raise ValueError(f"a test shows what the list says cannot be shown: {' '.join(wrong)}")
    lines = []
    for group, members in groupby(counted, key=lambda each: each.group):
        ids = [each.id for each in members]
        lines.append(
            f"{group}: {len(shown.intersection(ids))}/{len(ids)}"
            + "".join(f" {id_}" for id_ in ids if id_ in shown)
            + "; none:"
            + ("".join(f" {id_}" for id_ in ids if id_ not in shown) or " -")
        )
    for level in ("MUST", "SHOULD"):
        ids = [each.id for each in counted if each.level == level]
        lines.append(f"{level}: {len(shown.intersection(ids))}/{len(ids)}")
    lines.append("MUST without a passing test:")
    missing = [each for each in counted if each.level == "MUST" and each.id not in shown]
    for group, members in groupby(missing, key=lambda each: each.group):
        lines.append(group)
        lines += [f"  {each.id} {each.topic}: {each.cannot or 'not yet'}" for each in members]
    return lines


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.requirements RESULTS.json")
    results: dict[str, list[str]] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        print("\n".join(report(set(results))))
    except ValueError as error:
        sys.exit(str(error))
