"""What one side has on record of one exchange, in a form in which the sides can be laid beside each other.

Inquirer, provider and network each record every request and provision (Act art. 23(1), (3)). An account is
such a record without anything personal: numbers, times, codes and counts. Persons are places (from 0) in
the inquiry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from schemas.messages import Malformed, build

INQUIRER, PROVIDER, NETWORK = "inquirer", "provider", "network"
SIDES = (INQUIRER, PROVIDER, NETWORK)

Name = tuple[str, str, str]
"""Of an exchange: inquirer, provider, message id."""

OPEN, HELD, ANSWERED, WITHDRAWN, EXPIRED = "open", "held", "answered", "withdrawn", "expired"
NOT_PERMITTED = "not_permitted"


@dataclass(frozen=True)
class Said:
    """What became of one person: one of the states above and, where nothing was provided, a code.

    `at` is the time of the answer, as its provider wrote it (ISO 8601), and `answer` its message id.
    """

    state: str = OPEN
    code: str = ""
    at: str = ""
    answer: str = ""
    non_disclosure: bool = False


@dataclass(frozen=True)
class Account:
    """One exchange as one side (of SIDES) has it; or, where `unasked`, a notice (連絡) that tells about
    persons.

    Of a notice the sender is the provider, and the receiver the inquirer, whose affair it is.

    `left` tells that the inquiry left its house: before, nobody else can know of it. `processing_number`
    and `valid_until` are "" until the network gave them. `corrections` are the message ids of the notices
    by which a party told that it corrected its record, `changed_at` when the side recorded the last of this
    (ISO 8601).
    """

    side: str
    inquirer: str
    provider: str
    message_id: str
    processing_number: str
    requested_at: str
    valid_until: str
    left: bool
    basis: str
    law_version: str
    law_row: str
    information: str
    office: str
    items: tuple[str, ...]
    units: tuple[int, ...]
    non_disclosure: bool
    persons: tuple[Said, ...]
    corrections: tuple[str, ...]
    changed_at: str
    unasked: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """By what all sides know the same exchange: whose affair it is, and the first message's id."""
        return self.inquirer, self.message_id

    @property
    def name(self) -> "Name":
        """By what the network finds it."""
        return self.inquirer, self.provider, self.message_id


@dataclass(frozen=True)
class Sides:
    """What there is of one exchange: the accounts of those sides that were `asked` (of SIDES) and have one.

    `queued` tells that a message about it waits to be sent at one of them. `turned_away` is the code with
    which its receiver's linkage interface refused the first message, so that there is no record there, or "".
    """

    accounts: tuple[Account, ...]
    asked: tuple[str, ...]
    queued: bool = False
    turned_away: str = ""

    def of(self, side: str) -> Account | None:
        return next((each for each in self.accounts if each.side == side), None)


def account_from(values: Mapping[str, Any]) -> Account:
    """From its transport form. Raises Malformed."""
    try:
        persons = tuple(build(Said, said) for said in values["persons"])
        empty = {f.name: values[f.name] for f in fields(Account)}
    except (KeyError, TypeError) as error:
        raise Malformed("not an account") from error
    return replace(Account(**empty), persons=persons)


def sides_from(values: Mapping[str, Any]) -> Sides:
    """From their transport form. Raises Malformed."""
    try:
        accounts = tuple(map(account_from, values["accounts"]))
        return Sides(accounts, tuple(values["asked"]), values["queued"], values["turned_away"])
    except (KeyError, TypeError) as error:
        raise Malformed("not the sides of an exchange") from error
