"""The network's own records of exchanges (Act art. 23(3)), told to their parties and its operator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from adapters.network.reference import letters
from adapters.network.reference.exchange import (
    ExchangeAnswered,
    ExchangeCorrected,
    ExchangePermitted,
    ExchangeRefused,
    ExchangeWithdrawn,
    stream,
)
from adapters.network.reference.letters import LetterRelayed
from broker.ledger.events import Recorded
from broker.ledger.ledger import Ledger
from broker.ledger.projections import Follower, Rows
from schemas.accounts import ANSWERED, NETWORK, NOT_PERMITTED, WITHDRAWN, Account, Name, Said
from schemas.messages import AnswerControl, InquiryControl, LetterControl, decode

PAGE = 50
"""Exchanges of one answer: one of them may be about MAX_RECORDS persons."""


def account(recorded: Sequence[Recorded]) -> Account | None:
    """The account of an exchange, or of a notice about persons, from the events of its stream; or None."""
    found: Account | None = None
    for happened in recorded:
        e = happened.event
        match e:
            case ExchangePermitted() | ExchangeRefused():
                found = _begun(e)
            case LetterRelayed() if told_of(e):
                found = _relayed(e)
            case ExchangeAnswered() if found is not None:
                control = decode(AnswerControl, e.control)
                said = Said(ANSWERED, e.code, e.answered_at, e.message_id, control.non_disclosure)
                found = _with(found, dict.fromkeys(e.persons, said))
            case ExchangeWithdrawn() if found is not None:
                found = _with(found, dict.fromkeys(e.persons, Said(WITHDRAWN)))
            case ExchangeCorrected() if found is not None:
                told = tuple(sorted({*found.corrections, e.message_id}))
                found = replace(found, corrections=told)
    return replace(found, changed_at=recorded[-1].at) if found is not None else None


def told_of(e: LetterRelayed) -> bool:
    """Whether a letter tells something about persons, as a notice (連絡) may."""
    return e.kind == "notice" and bool(e.persons)


def _relayed(e: LetterRelayed) -> Account:
    """What the letter says and whether it falls under non-disclosure, the network cannot read."""
    return Account(
        side=NETWORK,
        inquirer=e.receiver,
        provider=e.sender,
        message_id=e.message_id,
        processing_number="",
        requested_at=e.sent_at,
        valid_until="",
        left=True,
        basis="",
        law_version=e.law_version,
        law_row=e.law_row,
        information=e.information,
        office=decode(LetterControl, e.control).to_office,
        items=(),
        units=(),
        non_disclosure=False,
        persons=(Said(ANSWERED, "", e.sent_at),) * len(e.persons),
        corrections=(),
        changed_at="",
        unasked=True,
    )


def _with(found: Account, told: dict[int, Said]) -> Account:
    persons = tuple(told.get(place, said) for place, said in enumerate(found.persons))
    return replace(found, persons=persons)


def _begun(e: ExchangePermitted | ExchangeRefused) -> Account:
    permitted = isinstance(e, ExchangePermitted)
    codes = e.codes or (("" if permitted else getattr(e, "code", ""),) * len(e.persons))
    return Account(
        side=NETWORK,
        inquirer=e.inquirer,
        provider=e.provider,
        message_id=e.message_id,
        processing_number=e.processing_number,
        requested_at=e.requested_at,
        valid_until=e.valid_until if isinstance(e, ExchangePermitted) else "",
        left=True,
        basis=e.basis,
        law_version=e.law_version,
        law_row=e.law_row,
        information=e.information,
        office=e.office,
        items=e.items,
        units=e.units if isinstance(e, ExchangePermitted) else (),
        non_disclosure=isinstance(e, ExchangePermitted) and decode(InquiryControl, e.control).non_disclosure,
        persons=tuple(Said(NOT_PERMITTED, code) if code else Said() for code in codes),
        corrections=(),
        changed_at="",
    )


class Parties:
    """Whose exchanges lie where, so that each party reads its own in their order ("": all of them)."""

    name: ClassVar[str] = "exchange_parties"
    tables: ClassVar[Mapping[str, str]] = {
        "exchange_party": "agency TEXT, position INTEGER, stream TEXT, requested_at TEXT, "
        "PRIMARY KEY (agency, position)"
    }

    def apply(self, rows: Rows, recorded: Recorded) -> None:
        match recorded.event:
            case ExchangePermitted() | ExchangeRefused() as e:
                self._insert(rows, recorded, {e.inquirer, e.provider, ""}, e.requested_at)
            case LetterRelayed() as e if told_of(e):
                self._insert(rows, recorded, {e.sender, e.receiver, ""}, e.sent_at)

    def _insert(self, rows: Rows, recorded: Recorded, parties: set[str], at: str) -> None:
        rows.executemany(
            "INSERT INTO exchange_party VALUES (?, ?, ?, ?)",
            [(agency, recorded.position, recorded.stream, at) for agency in sorted(parties)],
        )


class Accounts:
    """Reads the network's ledger; `number_of` gives the processing number of an inquirer's message."""

    def __init__(self, ledger: Ledger, follower: Follower, number_of: Callable[[str, str], str]) -> None:
        self._ledger = ledger
        self._follower = follower
        self._number_of = number_of

    async def page(self, agency: str, after: int, since: str, until: str) -> tuple[int, list[Account]]:
        """The exchanges of an agency behind a position, requested from one time to before another ("": any).

        Gives where the next page begins (0: there is none). "" as an agency reads all: for the operator.
        """
        await self._follower.reach(self._ledger.position)
        rows = await self._follower.query(
            "SELECT position, stream FROM exchange_party WHERE agency = ? AND position > ? "
            "AND requested_at >= ? AND (? = '' OR requested_at < ?) ORDER BY position LIMIT ?",
            (agency, after, since, until, until, PAGE),
        )
        found = await self._of([key for _, key in rows])
        return rows[-1][0] if len(rows) == PAGE else 0, [each for each in found if each is not None]

    async def of(self, agency: str, names: Sequence[Name]) -> list[Account | None]:
        """What the network has of these exchanges and notices; None for nothing, or for others'."""
        exchanges = [stream(self._number_of(inquirer, message)) for inquirer, _, message in names]
        notices = [letters.stream(sender, message) for _, sender, message in names]
        found = zip(names, await self._of(exchanges), await self._of(notices), strict=True)
        return [
            next((each for each in pair if each and each.name == name and _may(agency, each)), None)
            for name, *pair in found
        ]

    async def _of(self, keys: Sequence[str]) -> list[Account | None]:
        found = await self._ledger.streams(keys)
        return [account(found[key]) for key in keys]


def _may(agency: str, found: Account) -> bool:
    return agency in ("", found.inquirer, found.provider)
