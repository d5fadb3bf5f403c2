"""`renkei audit record` and `check-record`: one record of a message, proved to who has nothing else."""

import json
import stat
from base64 import b64decode, b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.platform.inprocess import Platform
from adapters.platform.notices import Notices
from broker.ledger.ledger import Change, Unit
from broker.ledger.merkle import ProofInvalid
from broker.linkage.outgoing import MessageQueued
from ops.config import AgencyConfig, ConfigurationError
from ops.record_proof import check, read_proof, record, written
from schemas.messages import LetterBody, LetterRequest
from tests.house import (
    ANSWERING,
    ASKING,
    NECESSARY,
    NO_RECORD,
    OFFICE,
    START,
    House,
    Keys,
    Town,
    asked_of,
    order,
)

KEY = "linkage_log/2026-11"
Shown = pytest.CaptureFixture[str]


class Clerk:
    """Makes proofs of what an agency received, and checks them with the authority's certificate alone."""

    def __init__(self, keys: Keys, folder: Path, capsys: Shown) -> None:
        self.file = folder / "proof.json"
        self.authority = keys.folder / "messages" / "ca.pem"
        self._capsys = capsys

    def write(self, town: Town, message: str = "", request: str = "", place: int = 0, **changes: Any) -> str:
        """The code of the refusal, or "" where the proof was written."""
        nothing: dict[str, Any] = dict.fromkeys(
            ("name", "kind", "authority", "tls_certificate", "tls_key", "signing_certificate", "signing_key",
             "network", "business", "business_certificate", "business_key"), "",
        )  # fmt: skip
        config = replace(AgencyConfig(code=town.agency.code, data=str(town.data), **nothing), **changes)
        status = record(config, message, request, place, self.file)
        return self._code(status)

    def _code(self, status: int) -> str:
        code = self._capsys.readouterr().err[1:6]
        assert status == bool(code)
        return code

    def check(self) -> list[str]:
        """What the proof shows."""
        self._capsys.readouterr()
        assert check(self.file, self.authority) == 0
        return self._capsys.readouterr().out.splitlines()

    def refusal(self) -> str:
        return self._code(check(self.file, self.authority))


@pytest.fixture
def clerk(keys: Keys, tmp_path: Path, capsys: Shown) -> Clerk:
    return Clerk(keys, tmp_path, capsys)


async def known(town: Town) -> None:
    """As an agency does before it first signs by its certificate."""
    await town.platform.keep_certificate(town.agency.code, town.linkage.signer.identity)


@pytest.mark.req("R-049")
async def test_what_was_answered_about_one_person_is_shown_without_the_others(
    house: House, clerk: Clerk
) -> None:
    await known(house.asking)
    await house.answer(0, 1, 2)
    await house.asking.take_in()
    for place in range(3):
        assert clerk.write(house.asking, request="q-1", place=place) == ""
        lines = clerk.check()
        text = "\n".join(lines)
        assert lines[0].endswith("(OK: the record was said exactly so)")
        assert f"機関 {ANSWERING.code}" in lines[2]
        assert f"機関 {ASKING.code}" in lines[3]
        assert START.isoformat() in lines[4].replace(".000000", "")
        assert "番号法第19条第8号 表の項81" in lines[5]
        assert f"3 件のうち {place + 1} 件目" in text
        for other in range(3):
            assert (str(asked_of(other)["total_income"]) in text) == (other == place)
        assert all(f"({item}): " in text for item in NECESSARY)
    assert stat.S_IMODE(clerk.file.stat().st_mode) == 0o600


async def test_a_provider_proves_what_it_was_asked(house: House, clerk: Clerk) -> None:
    await house.answering.platform.receive(await house.ask(0))
    (asked,) = [entry["message_id"] for entry in await house.answering.log() if entry["direction"] == "in"]
    assert clerk.write(house.answering, asked) == ""
    lines = clerk.check()
    assert lines[1].startswith("  種別 (what): 照会 (inquiry)")
    assert f"機関 {ASKING.code} {OFFICE} affair_officer" in lines[2]
    assert "番号法第19条第8号 表の項81" in lines[5]
    assert any("相当年度" in line for line in lines)


async def test_the_law_row_of_an_answer_is_shown_only_where_the_inquiry_proves_it(
    house: House, clerk: Clerk
) -> None:
    await house.answer(0)
    await house.asking.take_in()
    assert clerk.write(house.asking, request="q-1") == ""
    assert "この証明にはありません" in "\n".join(
        clerk.check()
    )  # our own certificate of that time is not kept
    await known(house.asking)
    assert clerk.write(house.asking, request="q-1") == ""
    first = json.loads(clerk.file.read_text(encoding="utf-8"))
    assert "表の項81" in "\n".join(clerk.check())
    await house.asking.platform.inquire(order("q-2", 1))
    await house.post()
    assert clerk.write(house.asking, request="q-2") == ""
    other = json.loads(clerk.file.read_text(encoding="utf-8"))
    clerk.file.write_text(json.dumps(first | {"inquiry": other["inquiry"]}), encoding="utf-8")
    assert clerk.refusal() == "S-173"


async def test_a_letter_is_proved_as_other_messages_are(house: House, clerk: Clerk) -> None:
    nothing = dict.fromkeys(("processing_number", "letter_to", "law_version", "law_row", "information"), "")
    Notices(house.asking.platform)
    content = {"title": "題", "text": "本文", "layout": "", "subject": None}
    letter = await house.answering.platform.letter(
        LetterRequest(
            message_id="m-1", kind="notice", office="税務課", official_role="affair_officer",
            receiver=ASKING.code, to_office="", sent_at=START.isoformat(timespec="microseconds"),
            link_codes=(), bodies=(LetterBody(content),), **nothing,
        ),
        START,
    )  # fmt: skip
    assert isinstance(letter, MessageQueued)
    unit = Unit("test/m-1", (Change("outgoing/m-1", 0, (letter,)),))
    await house.answering.platform.ledger.append(unit)
    await house.post()
    assert clerk.write(house.asking, "m-1") == ""
    lines = clerk.check()
    assert lines[1] == "  種別 (what): 連絡 (notice) m-1"
    assert "この証明にはありません" in lines[5]
    assert {"    title: 題", "    text: 本文"} <= {*lines}


async def test_there_is_no_proof_of_what_did_not_come(
    house: House, clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.asking.platform.inquire(order("open", 0))
    assert clerk.write(house.asking, request="open") == "S-171"
    assert clerk.write(house.asking, request="never") == "S-171"
    assert clerk.write(house.asking, "never") == "S-171"
    with monkeypatch.context() as patched:  # a ledger from before certificates were kept
        patched.setattr(Platform, "keep_certificate", nowhere)
        await house.post()
    assert clerk.write(house.asking, request="open") == "S-174"
    await house.asking.platform.inquire(order("q-1", 1))
    await house.post()
    for place in (-1, 1):
        assert clerk.write(house.asking, request="q-1", place=place) == "S-172"
    await house.asking.platform.inquire(order("nothing", NO_RECORD))
    await house.post()
    refusal = (await house.asking.log())[-1][
        "message_id"
    ]  # it refuses the whole, and says nothing of anybody
    assert clerk.write(house.asking, request="nothing") == "S-171"
    assert clerk.write(house.asking, refusal) == "S-172"
    assert clerk.write(house.asking, request="q-1", sealing="classical") == "L-201"
    assert clerk.write(house.asking, request="q-1") == ""
    house.asking.folder.vault.retire(KEY, "rule")
    house.asking.folder.vault.destroy(KEY, START.isoformat())
    assert clerk.write(house.asking, request="q-1") == "I-207"


async def nowhere(_platform: Platform, _holder: str, _who: object) -> None:
    """Keeps nothing."""


async def test_an_altered_proof_is_refused(house: House, clerk: Clerk, tmp_path: Path) -> None:
    await known(house.asking)
    await house.answer(0, 1, 2)
    await house.asking.take_in()
    assert clerk.write(house.asking, request="q-1", place=1) == ""
    genuine = clerk.file.read_bytes()
    values = json.loads(genuine)
    assert written(read_proof(genuine)) == genuine
    altered: list[Any] = [
        {},
        [],
        values | {"form": "renkei/record-proof/2"},
        values | {"place": True},
        values | {"place": 2},
        values | {"records": 2},
        values | {"path": values["path"][::-1]},
        values | {"path": "AA=="},
        values | {"inquiry": {}},
        values | {"more": "AA=="},
        {name: value for name, value in values.items() if name != "record"},
        *(
            values | {name: flipped(values[name])}
            for name in ("record", "control", "signature", "certificate")
        ),
        *(
            values | {"inquiry": values["inquiry"] | {name: flipped(values["inquiry"][name])}}
            for name in ("control", "signature", "certificate")
        ),
    ]
    for each in altered:
        clerk.file.write_text(json.dumps(each), encoding="utf-8")
        assert clerk.refusal() == "S-173", each
    for raw in (b"", b"\xff", b"[" * 100_000):
        with pytest.raises(ProofInvalid):
            read_proof(raw)
    clerk.file.write_bytes(genuine)
    clerk.authority = Keys(tmp_path / "others").folder / "messages" / "ca.pem"
    assert clerk.refusal() == "S-173"
    clerk.authority = tmp_path / "none.pem"
    with pytest.raises(ConfigurationError):
        clerk.refusal()


def flipped(text: str) -> str:
    """The same bytes but for one bit near the end."""
    data = bytearray(b64decode(text))
    data[-2] ^= 1
    return b64encode(data).decode("ascii")


async def test_a_file_that_is_not_there_is_no_false_proof(clerk: Clerk) -> None:
    assert clerk.refusal() == "S-104"


async def test_each_certificate_is_kept_once(house: House) -> None:
    for request_id, who in (("q-1", 0), ("q-2", 1)):
        await house.asking.platform.inquire(order(request_id, who))
        await house.post()
    kept = [r.event for r in await house.asking.events() if r.stream.startswith("certificate/")]
    assert [(event.holder, event.fingerprint) for event in kept] == [
        (ANSWERING.code, house.answering.linkage.signer.identity.fingerprint)
    ]
