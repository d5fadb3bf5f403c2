"""`renkei records reconcile`: the records of each exchange beside each other (Act art. 23(1), (3)).

Whoever has several ledgers at hand compares them offline, from the clear parts of their events alone: no
key is needed. An agency compares its own records with the network's online. Either way every difference is
named, and what is merely on its way is told apart from it: messages that wait in an outbox, and whatever
changed at one of the sides so recently that the others may not have heard of it.
"""

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
from rich.progress import Progress, TaskID

from adapters.business.client import BusinessClient
from adapters.http import Unreachable
from adapters.network.reference import accounts as network_accounts
from broker.intermediate import accounts, correction
from broker.ledger.events import Recorded, Registry
from broker.ledger.store import Store
from ops.audit import Evidence, evidence
from ops.business import client
from ops.config import AgencyConfig, ConfigurationError
from ops.daemons import ADDRESSING
from ops.terminal import console, fail, progress_bar
from schemas.accounts import (
    ANSWERED,
    EXPIRED,
    HELD,
    INQUIRER,
    NETWORK,
    NOT_PERMITTED,
    OPEN,
    PROVIDER,
    SIDES,
    WITHDRAWN,
    Account,
    Said,
    Sides,
)
from schemas.errors import Refused

SETTLE = timedelta(minutes=30)
"""So long after the last change at a side its difference from the others counts as under way."""
STEP = 2_000
TOGETHER = 16

SIDE_NAMES = {INQUIRER: "照会側", PROVIDER: "提供側", NETWORK: "ネットワーク"}
STATE_NAMES = {
    OPEN: "未回答",
    HELD: "保留",
    ANSWERED: "回答済",
    WITHDRAWN: "取りやめ",
    EXPIRED: "期限切れ",
    NOT_PERMITTED: "不許可",
}
WORDS = {
    "missing": ("記録がない", "no record"),
    "unsent": ("照会側では送っていないはずの記録がある", "a record of what the inquirer never sent"),
    "verdict": ("ネットワークの判断の記録がない", "no record of the network's verdict"),
    "twice": ("同じ照会の記録が二つある", "two records of one inquiry"),
    "request": ("提供の求めの記録が違う", "the request is recorded differently"),
    "persons": ("人数が違う", "another number of persons"),
    "answered": ("回答の記録が一方にしかない", "an answer is on record at one side alone"),
    "ended": ("取りやめまたは期限切れの記録が一方にしかない", "ended at one side alone"),
    "held": (
        "提供側で保留のままだが、ほかでは終わっている",
        "still held at the provider, while closed elsewhere",
    ),
    "state": ("処理の状態が違う", "another state"),
    "code": ("結果のコードが違う", "another code"),
    "time": ("提供の日時が違う", "another time of provision"),
    "answer": ("回答のメッセージ番号が違う", "another answer"),
    "non_disclosure": ("不開示情報の別が違う", "another mark of non-disclosure"),
    "correction": ("訂正の通知の記録がない", "no record of a correction that was told"),
}
"""Each kind of difference, in Japanese and English."""

_REQUEST = (
    "provider",
    "processing_number",
    "requested_at",
    "valid_until",
    "basis",
    "law_version",
    "law_row",
    "information",
    "office",
    "items",
    "units",
    "non_disclosure",
)


@dataclass(frozen=True)
class Difference:
    """One difference: `kind` is a word of WORDS, `found` what each side concerned says.

    `item` names what of a request differs, or the message id of a correction; `place` is the person (from 0),
    or -1 where it is about the whole exchange.
    """

    kind: str
    key: tuple[str, str]
    processing_number: str
    found: Mapping[str, str]
    item: str = ""
    place: int = -1

    def __str__(self) -> str:
        words = WORDS[self.kind]
        person = f" {self.place + 1}人目 (person {self.place + 1})" if self.place >= 0 else ""
        sides = ", ".join(f"{SIDE_NAMES[side]} ({side}): {said}" for side, said in self.found.items())
        item = f" {self.item}" if self.item else ""
        number = self.processing_number or "-"
        return f"{number} {'/'.join(self.key)}{person}: {words[0]} ({words[1]}){item} [{sides}]"


def compare(sides: Sides, now: datetime, settle: timedelta = SETTLE) -> tuple[list[Difference], bool]:
    """The differences between the sides of one exchange, and whether it is still under way.

    What is under way may differ for now; its differences are not named.
    """
    found = [*_presence(sides), *_requests(sides), *_persons(sides, now), *_corrections(sides)]
    if not found or not _under_way(sides, now, settle):
        return found, False
    return [each for each in found if each.kind in ("twice", "unsent")], True


def _under_way(sides: Sides, now: datetime, settle: timedelta) -> bool:
    """Messages wait in an outbox; or a side, or the end of the permit, is too recent for all to know."""
    if sides.queued:
        return True
    if any(now - datetime.fromisoformat(each.changed_at) <= settle for each in sides.accounts):
        return True
    ends = {each.valid_until for each in sides.accounts if each.valid_until}
    return any(timedelta() <= now - datetime.fromisoformat(end) <= settle for end in ends)


def _made(sides: Sides, kind: str, found: Mapping[str, Any], item: str = "", place: int = -1) -> Difference:
    numbers = [each.processing_number for each in sides.accounts if each.processing_number]
    said = {side: found[side] if isinstance(found[side], str) else _text(found[side]) for side in found}
    return Difference(kind, sides.accounts[0].key, numbers[0] if numbers else "", said, item, place)


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _presence(sides: Sides) -> Iterator[Difference]:
    known = Counter(each.side for each in sides.accounts)
    for side, times in known.items():
        if times > 1:
            yield _made(sides, "twice", {side: f"{times}"})
    if sides.accounts[0].unasked:
        yield from _absent(sides, PROVIDER, INQUIRER)
    else:
        yield from _absent(sides, INQUIRER, PROVIDER)


def _absent(sides: Sides, sender: str, receiver: str) -> Iterator[Difference]:
    """Who should have a record of what the sender sent, and has none."""
    first, network = sides.of(sender), sides.of(NETWORK)
    others = [each for each in sides.accounts if each.side != sender]
    if first is not None and not first.left and others:
        closed = all(said.state != OPEN for said in first.persons)
        found = {sender: "未送信" if closed else "判断待ち", **{each.side: "あり" for each in others}}
        yield _made(sides, "unsent" if closed else "verdict", found)
    permitted = network is not None and any(said.state != NOT_PERMITTED for said in network.persons)
    provided = not sides.accounts[0].unasked and any(map(_provided, network.persons if network else ()))
    for side, expected in (
        (sender, bool(others)),
        (NETWORK, bool(others) or (first is not None and first.left)),
        (receiver, permitted and (provided or not sides.turned_away)),
    ):
        if side in sides.asked and sides.of(side) is None and expected:
            yield _made(sides, "missing", {side: "なし"})


def _provided(said: Said) -> bool:
    return said.state == ANSWERED and not said.code


def _requests(sides: Sides) -> Iterator[Difference]:
    """What the sides say of the request; what one of them cannot know it leaves empty."""
    for item in _REQUEST:
        able = [each for each in sides.accounts if item != "non_disclosure" or not _blind(each)]
        known = {each.side: value for each in able if (value := getattr(each, item)) not in ("", ())}
        if len(set(known.values())) > 1:
            yield _made(sides, "request", known, item)
    counts = {each.side: str(len(each.persons)) for each in sides.accounts}
    if len(set(counts.values())) > 1:
        yield _made(sides, "persons", counts)


def _blind(found: Account) -> bool:
    """The network cannot tell the flag of a notice, which is sealed, nor of a message it did not keep."""
    refused = all(said.state == NOT_PERMITTED for said in found.persons)
    return found.side == NETWORK and (found.unasked or refused)


def _persons(sides: Sides, now: datetime) -> Iterator[Difference]:
    by_side = {each.side: each for each in sides.accounts if each.left}
    if len(by_side) < 2 or len({len(each.persons) for each in by_side.values()}) > 1:
        return
    network = by_side.get(NETWORK)
    lapsed = bool(network and network.valid_until and now > datetime.fromisoformat(network.valid_until))
    for place in range(len(next(iter(by_side.values())).persons)):
        said = {side: each.persons[place] for side, each in by_side.items()}
        if lapsed and NETWORK in said and said[NETWORK].state == OPEN:  # nobody tells the network of a lapse
            said[NETWORK] = replace(said[NETWORK], state=EXPIRED)
        yield from _person(sides, said, place)


def _person(sides: Sides, said: Mapping[str, Said], place: int) -> Iterator[Difference]:
    states = {side: _STANDING.get(each.state, each.state) for side, each in said.items()}
    if len(set(states.values())) == 1:
        yield from _answer(sides, said, place)
        return
    provider = said.get(PROVIDER)
    rest = {state for side, state in states.items() if side != PROVIDER}
    if provider is not None and provider.state == ANSWERED and provider.code and rest == {EXPIRED}:
        return  # a refusal that came too late: all agree that nothing was provided
    found = {side: f"{STATE_NAMES[each.state]} {each.code}".rstrip() for side, each in said.items()}
    if ANSWERED in states.values():
        kind = "answered"
    elif provider is not None and provider.state == HELD and EXPIRED in rest:
        kind = "held"
    else:
        kind = "ended" if EXPIRED in states.values() else "state"
    yield _made(sides, kind, found, place=place)


# To the others what is held is not answered; and withdrawn or lapsed, nothing is provided any more.
_STANDING = {HELD: OPEN, WITHDRAWN: EXPIRED}


def _answer(sides: Sides, said: Mapping[str, Said], place: int) -> Iterator[Difference]:
    """The state is the same; is what was said?"""
    first = next(iter(said.values())).state
    if first not in (ANSWERED, NOT_PERMITTED):
        return
    # The network knows the code of a whole answer, not those of single persons inside.
    codes = {s: e.code for s, e in said.items() if s != NETWORK or e.code}
    if len(set(codes.values())) > 1:
        yield _made(sides, "code", {side: code or "提供" for side, code in codes.items()}, place=place)
    if first == NOT_PERMITTED:
        return
    for kind, values in (
        ("time", {side: each.at for side, each in said.items()}),
        ("answer", {side: each.answer for side, each in said.items() if each.answer}),
        (
            "non_disclosure",
            {}
            if any(each.code for each in said.values())
            else {s: e.non_disclosure for s, e in said.items()},
        ),
    ):
        if len(set(values.values())) > 1:
            yield _made(sides, kind, values, place=place)


def _corrections(sides: Sides) -> Iterator[Difference]:
    told = {message for each in sides.accounts for message in each.corrections}
    for message in sorted(told):
        lacking = [each.side for each in sides.accounts if each.left and message not in each.corrections]
        if lacking:
            yield _made(sides, "correction", dict.fromkeys(lacking, "なし"), message)


# -- several ledgers at hand ----------------------------------------------------------------------------

_TABLES = (
    "CREATE TABLE exchange (inquirer TEXT, message TEXT, side TEXT, ledger INTEGER, stream TEXT, "
    "provider TEXT, unasked INTEGER, PRIMARY KEY (inquirer, message, side, ledger, stream)) WITHOUT ROWID",
    "CREATE TABLE queued (ledger INTEGER, message TEXT, PRIMARY KEY (ledger, message)) WITHOUT ROWID",
    "CREATE TABLE refused (agency TEXT, message TEXT, code TEXT, PRIMARY KEY (agency, message)) "
    "WITHOUT ROWID",
)
_FIRST = {
    "inquiry.requested": INQUIRER,
    "provision.requested": PROVIDER,
    "exchange.permitted": NETWORK,
    "exchange.refused": NETWORK,
    "notice.sent": PROVIDER,
    "received_notice.received": INQUIRER,
    "letter.relayed": NETWORK,
}
"""The first events of streams that tell of exchanges and of notices, and whose they are."""
_QUEUED, _SETTLED, _REFUSED = "linkage.message_queued", "linkage.message_settled", "linkage.message_refused"


class Ledgers:
    """The exchanges of several ledgers in the order of their keys. Memory is bounded: the index is a file."""

    def __init__(self, found: Sequence[tuple[str, Registry, Store]], index: Path) -> None:
        """`found` are ledgers by who keeps them: an agency's code, or NETWORK."""
        self._found = found
        self._rows = sqlite3.connect(index)
        for table in _TABLES:
            self._rows.execute(table)

    def close(self) -> None:
        self._rows.close()

    def read(self, ledger: int, show: Callable[[int], None]) -> None:
        """Note which exchanges a ledger has, and what waits in its outbox."""
        _, registry, store = self._found[ledger]
        position, size = 0, store.head().size
        with self._rows:
            while position < size:
                for stored in store.events(position, STEP):
                    position = stored.id
                    if stored.topic.rpartition("/")[0] in (*_FIRST, _QUEUED, _SETTLED, _REFUSED):
                        self._note(ledger, registry.decode(stored, None))
                show(position)

    def _note(self, ledger: int, recorded: Recorded) -> None:
        e = recorded.event
        if e.wire.name in _FIRST:
            first = [recorded]
            made = network_accounts.account(first) if self._of_network(ledger) else accounts.account(first)
            if made is not None:
                row = (*made.key, made.side, ledger, recorded.stream, made.provider, made.unasked)
                self._rows.execute("INSERT INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        elif e.wire.name == _QUEUED:
            self._rows.execute("INSERT OR IGNORE INTO queued VALUES (?, ?)", (ledger, e.message_id))
        elif e.wire.name == _SETTLED:
            self._rows.execute("DELETE FROM queued WHERE ledger = ? AND message = ?", (ledger, e.message_id))
        elif e.kind in ("inquiry", "notice"):
            refused = (self._found[ledger][0], e.message_id, e.code)
            self._rows.execute("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", refused)

    def _of_network(self, ledger: int) -> bool:
        return self._found[ledger][0] == NETWORK

    def count(self) -> int:
        rows = self._rows.execute("SELECT COUNT(*) FROM (SELECT DISTINCT inquirer, message FROM exchange)")
        return int(rows.fetchone()[0])

    def sides(self) -> Iterator[Sides]:
        """Every exchange that one of the ledgers has, once."""
        rows = self._rows.execute("SELECT * FROM exchange ORDER BY inquirer, message")
        groups = ((key, list(group)) for key, group in groupby(rows, key=lambda row: row[:2]))
        while part := list(islice(groups, TOGETHER)):
            found = self._accounts([row for _, group in part for row in group])
            for key, group in part:
                yield self._laid(key, group, [found[row[3], row[4]] for row in group])

    def _accounts(self, rows: Iterable[Sequence[Any]]) -> dict[tuple[int, str], Account]:
        wanted: dict[int, list[str]] = {}
        for row in rows:
            wanted.setdefault(row[3], []).append(row[4])
        found = {}
        for ledger, streams in wanted.items():
            _, registry, store = self._found[ledger]
            beside = [] if self._of_network(ledger) else [correction.stream(key) for key in streams]
            events: dict[str, list[Recorded]] = {key: [] for key in (*streams, *beside)}
            for stored in store.streams([*events]):
                events[str(stored.originator_id)].append(registry.decode(stored, None))
            for key in streams:
                made = (
                    network_accounts.account(events[key])
                    if self._of_network(ledger)
                    else accounts.account(events[key], events[correction.stream(key)])
                )
                if made is not None:
                    found[ledger, key] = made
        return found

    def _laid(self, key: tuple[str, str], group: Sequence[Any], made: Sequence[Account]) -> Sides:
        here = {who for who, _, _ in self._found}
        inquirer, provider = key[0], group[0][5]
        keepers = (inquirer, provider, NETWORK)
        asked = tuple(side for side, who in zip(SIDES, keepers, strict=True) if who in here)
        ids = {key[1], *(said.answer for each in made for said in each.persons)}
        ids |= {message for each in made for message in each.corrections}
        refused = self._rows.execute(
            "SELECT code FROM refused WHERE agency = ? AND message = ?",
            (inquirer if group[0][6] else provider, key[1]),
        ).fetchone()
        return Sides(tuple(made), asked, self._waits(ids), refused[0] if refused else "")

    def _waits(self, messages: Iterable[str]) -> bool:
        select = "SELECT 1 FROM queued WHERE ledger = ? AND message = ?"
        return any(
            self._rows.execute(select, (ledger, message)).fetchone()
            for message in messages
            if message
            for ledger in range(len(self._found))
        )


@dataclass
class Tally:
    """How many exchanges were compared, how many are under way, and how many differences were named."""

    compared: int = 0
    under_way: int = 0
    differences: int = 0

    def take(self, sides: Sides, now: datetime, settle: timedelta) -> None:
        """Compare one exchange and print its differences."""
        found, under_way = compare(sides, now, settle)
        self.compared += 1
        self.under_way += under_way
        self.differences += len(found)
        for each in found:
            console.print(str(each), markup=False, soft_wrap=True)

    def status(self) -> int:
        """Say how it ended; exit status 1 if there is any difference."""
        console.print(
            f"照合 {self.compared} 件 処理中 {self.under_way} 件 相違 {self.differences} 件 "
            "(compared, under way, differences)"
        )
        return fail("I-258") if self.differences else 0


def offline(folders: Sequence[Path], store: str, settle: timedelta, now: datetime) -> int:
    """Compare every ledger below these folders; exit status 1 if there is a difference.

    Raises ConfigurationError where there is no ledger of an agency or of the network.
    """
    with ExitStack() as stack:
        found = []
        for folder in folders:
            for ledger in stack.enter_context(evidence(folder, store)):
                who = _keeper(ledger)
                if who:
                    found.append((who, ledger.kind()[0], stack.enter_context(ledger.store())))
        if not found:
            raise ConfigurationError(f"{folders[0]}: 照合できる台帳がありません (nothing to compare)")
        work = stack.enter_context(TemporaryDirectory())
        ledgers = stack.enter_context(closing(Ledgers(found, Path(work) / "index.sqlite")))
        return reconciled(ledgers, found, settle, now)


def _keeper(ledger: Evidence) -> str:
    """Whose records a ledger has: an agency's code, NETWORK, or "" for one without any (addressing)."""
    _, *rest = ledger.origin().split("/")
    if rest[1:] == [ADDRESSING]:
        return ""
    return NETWORK if rest == ["network"] else rest[0]


def reconciled(
    ledgers: Ledgers, found: Sequence[tuple[str, Registry, Store]], settle: timedelta, now: datetime
) -> int:
    """Read all ledgers, compare, and say what was found."""
    tally = Tally()
    with progress_bar() as progress:
        for index, (who, _, store) in enumerate(found):
            reading = progress.add_task(f"読込み {SIDE_NAMES.get(who, who)}", total=store.head().size)
            ledgers.read(index, partial(_show, progress, reading))
        comparing = progress.add_task("照合", total=ledgers.count())
        for sides in ledgers.sides():
            tally.take(sides, now, settle)
            progress.advance(comparing)
    return tally.status()


def _show(progress: Progress, task: TaskID, position: int) -> None:
    progress.update(task, completed=position)


# -- an agency against the network ------------------------------------------------------------------------


def online(config: AgencyConfig, since: str, until: str, settle: timedelta, now: datetime) -> int:
    """Compare an agency's records of a period (days, both included, "" open) with the network's of the
    same.
    """

    async def compared() -> int:
        tally = Tally()
        async with client(config) as door:
            with progress_bar() as progress:
                for which, name in (("own", "自機関の記録"), ("network", "ネットワークの記録")):
                    task = progress.add_task(name, total=None)
                    async for sides in pages(door, which, since, until):
                        tally.take(sides, now, settle)
                        progress.advance(task)
        return tally.status()

    try:
        return trio.run(compared)
    except Unreachable as error:
        return fail("S-106", str(error))
    except Refused as refused:
        return fail(refused.refusal.code, refused.refusal.detail)


async def pages(door: BusinessClient, which: str, since: str, until: str) -> AsyncIterator[Sides]:
    """What the agency has on record, beside the network's ("own"); or what the network alone has."""
    after = -1
    while after:
        after, found = await door.accounts(which, max(after, 0), since, until)
        for sides in found:
            yield sides
