"""Configurations as the network of the house would issue them, with one thing or another made different."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from broker.linkage.crypto import SealingKey, Signer, new_classical_secret, new_sealing_secret
from broker.linkage.partners import Configuration, Directory, DirectoryEntry, read_directory, sign_directory
from ops.synthetic import assessments_of
from tests.house import AGENCIES, START, Keys

LIFE, GRACE = timedelta(days=1), timedelta(days=3)
END = START + LIFE
LIMIT = ("990027", "limit", "住民票関係情報", "条例第九号", "2026-06-01", "2026-06-26", "9999-12-31")


@cache
def public(*, classical: bool = False) -> bytes:
    """Some partner's key to seal for; making one takes a while."""
    return SealingKey(new_classical_secret() if classical else new_sealing_secret()).public


def entry(keys: Keys, code: str, **changes: Any) -> DirectoryEntry:
    agency = next(agency for agency in AGENCIES if agency.code == code)
    certificates = (keys.signer(code).certificate,)
    made = DirectoryEntry(code, agency.name, agency.kind, (), certificates, public())
    return replace(made, **changes)


def configuration(keys: Keys, *entries: DirectoryEntry, **changes: Any) -> Configuration:
    """All agencies of the house, or these instead of their own entries."""
    known = {agency.code: entry(keys, agency.code) for agency in AGENCIES} | {e.code: e for e in entries}
    made = Configuration(
        serial=1,
        issued_at=START.isoformat(),
        valid_until=END.isoformat(),
        grace_seconds=int(GRACE.total_seconds()),
        network=(keys.signer("network").certificate,),
        agencies=tuple(known.values()),
        law_versions=("R6-9",),
        layouts=("income_tax_certificate/1",),
        assessments=assessments_of(("990019",)),
        ordinances=(LIMIT,),
        crl=b"",
    )
    return replace(made, **changes)


def signed(keys: Keys, *entries: DirectoryEntry, by: Signer | None = None, **changes: Any) -> bytes:
    return sign_directory(configuration(keys, *entries, **changes), by or keys.signer("network"))


def read(keys: Keys, data: bytes, now: datetime = START, held: Directory | None = None) -> Directory:
    return read_directory(data, keys.authority, now, held)


def directory(keys: Keys, *entries: DirectoryEntry, **changes: Any) -> Directory:
    return read(keys, signed(keys, *entries, **changes))
