"""Requests for link codes on a medium: a file that goes to the registry, comes back, and is gone."""

from pathlib import Path

import pytest

from adapters.registry.medium import (
    flat,
    read_requests,
    read_verdicts,
    write_requests,
    write_verdicts,
)
from schemas.errors import Refused

AGENCY, OTHER = "990019", "990027"
PAIRS = [(f"ab{n:030x}", f"9{n:011d}") for n in range(1201)]


@pytest.mark.req("R-118")
def test_requests_and_verdicts_come_out_as_they_went_in(tmp_path: Path) -> None:
    file = tmp_path / "codes.csv"
    write_requests(file, AGENCY, PAIRS)
    assert file.stat().st_mode & 0o777 == 0o600
    batches = list(read_requests(file, AGENCY))
    assert [len(batch) for batch in batches] == [500, 500, 201]
    assert list(flat(batches)) == PAIRS
    verdicts = [(number, "J-101" if n % 7 == 0 else "") for n, (number, _) in enumerate(PAIRS)]
    write_verdicts(file, AGENCY, verdicts)
    assert list(flat(read_verdicts(file, AGENCY))) == verdicts
    text = file.read_text(encoding="cp932")
    assert "住民基本台帳ネットワークにありません" in text, "the officer reads what it means"
    assert PAIRS[0][1] not in text, "the individual numbers are gone"


def test_a_file_without_anybody_is_read_as_one(tmp_path: Path) -> None:
    file = tmp_path / "codes.csv"
    write_requests(file, AGENCY, [])
    assert list(read_requests(file, AGENCY)) == []


def test_the_file_of_another_agency_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "codes.csv"
    write_requests(file, AGENCY, PAIRS[:2])
    with pytest.raises(Refused, match="J-108"):
        list(read_requests(file, OTHER))
    write_verdicts(file, AGENCY, [(PAIRS[0][0], "")])
    with pytest.raises(Refused, match="J-108"):
        list(read_verdicts(file, OTHER))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe",
        "機関コード,取得番号,コード,理由,次の手順\r\n".encode("cp932"),
        "機関コード,取得番号,個人番号\r\n990019,a\r\n".encode("cp932"),
        "機関コード,取得番号,個人番号\r\n990019,a,b,c\r\n".encode("cp932"),
        "機関コード,取得番号,個人番号\r\n".encode("cp932") + b"990019,a,\x80\r\n",
        b'"',
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "codes.csv"
    file.write_bytes(content)
    with pytest.raises(Refused, match="J-107"):
        list(read_requests(file, AGENCY))
