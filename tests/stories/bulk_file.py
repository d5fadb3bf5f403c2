"""One file of inquiries to five authorities: `python -m tests.stories.bulk_file [--lines 20000]`.

連携市 asks five cities about its residents with one file, by real processes over mutual TLS. Every line comes
to a verdict of its own, few envelopes go over the line, and what was said about one person is proved alone,
by `renkei audit check-record` with nothing at hand but the proof and the certificate of the authority.
"""

import json
import sqlite3
import sys
import time
from argparse import ArgumentParser
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ops.cli import main
from schemas.errors import entry
from tests.ops.town import NETWORK
from tests.stories.six_cities import ALL, ASKING, AUTHORITY, Plan, at_work, prepare, rows_of

PATIENCE = 3
Outcome = tuple[str, str]
Note = Callable[[str], None]


def told(folder: Path, lines: int, note: Note) -> Iterator[str]:
    """The lines of the story, as it happens; what the clock says goes to `note`."""
    plan = Plan(lines)
    began = time.monotonic()
    cities = prepare(folder, plan)
    with at_work(folder, cities):
        note(
            f"準備 {time.monotonic() - began:.1f} 秒、住民 {plan.people} 人 (residents, records, link codes)"
        )
        yield f"1. 一つのファイルに {lines} 行、提供者 {len(plan.providers)} 機関 (one file, five providers)"
        began = time.monotonic()
        results, errors = folder / "output" / "results.csv", folder / "output" / "errors.csv"
        said(
            "inquire", "--config", folder / f"{ASKING[0]}.toml", folder / "input" / "inquiries.csv",
            "--results", results, "--errors", errors, "--patience", PATIENCE,
        )  # fmt: skip
        taken = time.monotonic() - began
        note(f"照会 {taken:.1f} 秒 (asked, answered, fetched; the last {PATIENCE} s wait for who is held)")
        yield "2. 行ごとの結果 (a verdict for each line)"
        found = outcomes(results, errors)
        for kind in ALL:
            for (state, code), count in sorted(found.get(kind.prefix, {}).items()):
                reason = entry(code).cause_ja.partition("。")[0] if code else ""
                yield f"   {kind.title}: {count} 行 {state} {code} {reason}".rstrip()
        yield f"   計 {sum(sum(each.values()) for each in found.values())} 行 (every line is accounted for)"
        yield "3. ネットワークを通った照会 (inquiries on the wire)"
        for provider, envelopes in wire(folder):
            yield f"   {provider}: {envelopes} 通"
        yield "4. 一件の証明 (the proof of one record, verified alone)"
        yield from proofs(folder, results)


def said(*arguments: object, status: int = 0) -> str:
    """What a command of renkei says, whose exit status has to be this one."""
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        ended = main(list(map(str, arguments)))
    assert ended == status, out.getvalue()
    return out.getvalue()


def outcomes(results: Path, errors: Path) -> dict[str, Counter[Outcome]]:
    """What became of how many lines of each kind."""
    found: dict[str, Counter[Outcome]] = {}
    seen: set[str] = set()
    for row in rows_of(results):
        request = row["照会ID"]
        if request not in seen:  # a household has a line of the results for each person
            seen.add(request)
            found.setdefault(request.partition("-")[0], Counter())[row["状態"], row["コード"]] += 1
    prefixes = {kind.code: kind.prefix for kind in ALL if kind.state == "エラーリスト"}
    for row in rows_of(errors):
        code = row["コード"]
        found.setdefault(prefixes[code], Counter())["エラーリスト", code] += 1
    return found


def wire(folder: Path) -> list[tuple[str, int]]:
    """The network's own count of the inquiries that it was sent, by provider."""
    with closing(sqlite3.connect(folder / NETWORK / "projections.sqlite")) as rows:
        return rows.execute("SELECT provider, COUNT(*) FROM exchange GROUP BY 1 ORDER BY 1").fetchall()


def proofs(folder: Path, results: Path) -> Iterator[str]:
    """What was answered about somebody and about one of a household, and what a provider was asked."""
    answered = [row["照会ID"] for row in rows_of(results) if row["照会ID"].startswith("single-990043")]
    with closing(sqlite3.connect(folder / NETWORK / "projections.sqlite")) as rows:
        (asked,) = rows.execute("SELECT message_id FROM exchange WHERE provider = '990060'").fetchone()
    alone = folder / "alone"
    alone.mkdir()
    authority = alone / "ca.pem"
    authority.write_bytes((folder / AUTHORITY).read_bytes())
    file = alone / "proof.json"
    for name, agency, *which in (
        ("一人への回答", ASKING[0], "--request", answered[len(answered) // 2]),
        ("世帯の二人目への回答", ASKING[0], "--request", "household-990051-1", "--place", 1),
        ("提供側が受けた照会", "990060", "--message", asked, "--place", 100),
    ):
        said("audit", "record", "--config", folder / f"{agency}.toml", *which, "--out", file)
        first, *lines = said("audit", "check-record", file, "--authority", authority).splitlines()
        yield f"   {name}: {first}"
        yield from (f"   {line}" for line in lines if line.startswith(("  誰", "  根拠", "  記録")))
    refused = Counter(
        said("audit", "check-record", each, "--authority", authority, status=1)[1:6] for each in altered(file)
    )
    yield f"   書き換えた証明: {dict(refused)} (altered proofs are refused)"


def altered(file: Path) -> Iterator[Path]:
    """Copies of a proof, each with one thing in it that is not so."""
    genuine: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    changed = [genuine | {"place": genuine["place"] + 1}, genuine | {"path": genuine["path"][:-1]}]
    changed += [genuine | {name: _flipped(genuine[name])} for name in ("record", "control", "signature")]
    for number, values in enumerate(changed):
        copy = file.with_name(f"altered-{number}.json")
        copy.write_text(json.dumps(values), encoding="utf-8")
        yield copy


def _flipped(text: str) -> str:
    """The same bytes but for one bit near the end."""
    data = bytearray(b64decode(text))
    data[-2] ^= 1
    return b64encode(data).decode("ascii")


def run() -> None:
    parser = ArgumentParser(description="20,000 inquiries from one file to five authorities")
    parser.add_argument("--lines", type=int, default=20_000)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        for line in told(Path(folder), options.lines, lambda text: print(text, file=sys.stderr)):
            print(line, flush=True)  # what this is for


if __name__ == "__main__":
    run()
