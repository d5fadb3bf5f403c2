"""Staff at an agency's desk: authorities and offices, second persons, and the record of what officers do."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from adapters.platform.desk import Desk
from broker.intermediate import editing, hold, link_code, office, operation, second_person, sign_in, staff
from broker.intermediate.operation import Officer
from broker.ledger.events import Recorded
from broker.ledger.ledger import Change, StreamMoved, Unit
from schemas.errors import Refusal
from schemas.law.roles import second_person_acts

ACT_LIFE = timedelta(days=7)
"""How long an act waits for its second person: the operator's policy."""
EDIT_LIFE = timedelta(minutes=30)
AT_MOST = 1_000
"""Entries of the intermediate log in one answer, the latest ones: the memory for a reading is bounded."""

READ = "read_person_operations"
_FUNCTIONS = {
    "link_code": "id_conversion",
    "replica": "linkage_storage",
    "hold": "linkage_storage",
}
"""Which function of the architecture an event is an entry of; all others are of linkage confirmation."""
S = TypeVar("S")


@dataclass(frozen=True)
class Caller:
    """Who orders something, at which terminal, and what for (R-079)."""

    staff_id: str = field(repr=False)
    terminal: str = field(repr=False)
    purpose: str = field(repr=False)

    def __post_init__(self) -> None:
        if not (self.staff_id.strip() and self.purpose.strip()):
            raise ValueError("somebody, and a purpose")


@dataclass(frozen=True)
class Search:
    """What to look for in the intermediate log; days are ISO, both included, and "" is no limit."""

    staff_id: str = field(default="", repr=False)
    integrated_number: str = field(default="", repr=False)
    since: str = ""
    until: str = ""

    @property
    def span(self) -> tuple[str, str]:
        """Times from the first to before the second one, as text."""
        return self.since, f"{self.until}U" if self.until else "~"  # after every T of that day

    @property
    def content(self) -> str:
        """What a second person confirms: the same search, word for word."""
        return "\n".join((self.staff_id, self.integrated_number, self.since, self.until))


@dataclass(frozen=True)
class LogEntry:
    """An entry of the intermediate log (中間ログ): an operation of somebody, or what the function did itself.

    `log` is "business" or "audit"; `operation` a word of operations.tsv or the name of an event; `subjects`
    integrated address numbers. What was erased is empty.
    """

    position: int
    at: str
    log: str
    function: str
    operation: str
    staff_id: str
    office: str
    official_role: str
    subjects: tuple[str, ...]
    target: str
    purpose: str
    terminal: str


class Staffing:
    """What is done here is recorded in the unit in which it is done."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._ledger = desk.ledger

    def blind(self, staff_id: str) -> str:
        """The blind index of a member of staff in this agency's ledger."""
        return self._ledger.vault.blind("staff", staff_id)

    # 職員権限と所属

    async def authority(
        self, staff_id: str, row: str, day: str, what: str = "inquire", basis: str = "19-8"
    ) -> tuple[staff.AuthorityGranted | None, Refusal | None]:
        """The authority of this day, and why it does not suffice (I-101, I-102, I-126) or None (R-059).

        A registered office stands there by its name, as messages and provision records have it.
        """
        state = await self._standing(staff_id)
        granted = staff.authority(state, day)
        if granted is None:
            return None, Refusal("I-101")
        refusal = staff.authorise(state, row, day, what, basis)
        registered = await self._office(granted.office)
        if registered is not None:
            granted = replace(granted, office=registered.name)
        return granted, refusal or office.in_charge(registered, row, day)

    async def officer(self, caller: Caller, what: str) -> Officer | Refusal:
        """Who orders, with office and role of today. I-122 without an authority to do `what`."""
        state, day = await self._standing(caller.staff_id), self._now().isoformat()[:10]
        granted, refusal = staff.authority(state, day), staff.entitled(state, what, day)
        if refusal is not None or granted is None:
            return refusal or Refusal("I-122")
        return await self._officer(caller, granted)

    async def grant(self, granted: staff.AuthorityGranted) -> Refusal | None:
        """What the personnel system registers, singly or by file. I-126 for a row that the office has not."""
        refusal = office.covers(await self._office(granted.office), granted.rows)
        key = staff.stream(granted.staff_id)
        return refusal or await self._decide(
            key, staff.NOBODY, staff.evolve, lambda state: staff.decide_grant(state, granted)
        )

    async def revoke(self, revoked: staff.AuthorityRevoked) -> Refusal | None:
        """End all authority of somebody, likewise. I-127."""
        key = staff.stream(revoked.staff_id)
        return await self._decide(
            key, staff.NOBODY, staff.evolve, lambda state: staff.decide_revoke(state, revoked)
        )

    async def open_office(self, opened: office.OfficeOpened) -> Refusal | None:
        key = office.stream(opened.agency, opened.office)
        return await self._decide(key, None, office.evolve, lambda s: office.decide_open(s, opened))

    async def close_office(self, closed: office.OfficeClosed) -> Refusal | None:
        """I-126 for an office that is not registered."""
        key = office.stream(closed.agency, closed.office)
        return await self._decide(key, None, office.evolve, lambda s: office.decide_close(s, closed))

    async def destination(self, agency: str, code: str) -> office.OfficeOpened | Refusal:
        """An office, here or at a partner, that something can be sent to today (R-088). I-126."""
        _, state = await self._read(office.stream(agency, code), None, office.evolve)
        refusal = office.destination(state, self._now().isoformat()[:10])
        return state if state is not None and refusal is None else Refusal("I-126", code)

    # 職員認証

    async def sign_in(self, caller: Caller, life: timedelta) -> Refusal | None:
        """The business system authenticated somebody at a terminal (R-091). I-122 without authority."""
        now = self._now()
        granted = staff.authority(await self._standing(caller.staff_id), _text(now)[:10])
        if granted is None:
            return Refusal("I-122")
        officer = await self._officer(caller, granted)
        signed = sign_in.StaffSignedIn(
            self._terminal(caller), _text(now + life), caller.staff_id, caller.terminal
        )
        return await self._decide(
            sign_in.stream(self.blind(caller.staff_id)),
            None,
            sign_in.evolve,
            lambda _: (signed,),
            lambda: [self.operation("sign_in", officer)],
        )

    async def sign_out(self, caller: Caller) -> None:
        granted = staff.authority(await self._standing(caller.staff_id), _text(self._now())[:10])
        officer = await self._officer(caller, granted) if granted is not None else None
        await self._decide(
            sign_in.stream(self.blind(caller.staff_id)),
            None,
            sign_in.evolve,
            lambda state: sign_in.decide_sign_out(state, caller.staff_id),
            lambda: [self.operation("sign_out", officer)] if officer is not None else [],
        )

    async def present(self, caller: Caller) -> Refusal | None:
        """I-128 for somebody who is not signed in at this terminal now."""
        key = sign_in.stream(self.blind(caller.staff_id))
        _, state = await self._read(key, None, sign_in.evolve)
        return sign_in.present(state, self._terminal(caller), _text(self._now()))

    # 操作記録

    def operation(self, word: str, officer: Officer, numbers: Sequence[str] = (), target: str = "") -> Change:
        """What an officer does about persons (integrated address numbers), to be put into the same unit."""
        people = {number: self._desk.person(number) for number in numbers}
        entry = operation.recorded(
            word, officer, self.blind(officer.staff_id), people, target, _text(self._now())
        )
        return Change(operation.stream(self._token()), 0, (entry,))

    # 第二の職員

    async def propose(self, caller: Caller, act: str, content: str) -> str | Refusal:
        """Put an act before a second person; gives its id. `content` says all that is to be done. I-122.

        Raises KeyError for an act that second_person.tsv does not have.
        """
        officer = await self.officer(caller, second_person_acts()[act].proposer)
        if isinstance(officer, Refusal):
            return officer
        now, act_id = self._now(), self._token()
        proposed = second_person.ActProposed(
            act_id=act_id,
            act=act,
            digest=self._digest(act, content),
            staff=self.blind(caller.staff_id),
            proposed_at=_text(now),
            valid_until=_text(now + ACT_LIFE),
            staff_id=caller.staff_id,
            purpose=caller.purpose,
        )
        key = second_person.stream(act_id)
        noted = self.operation("propose", officer, target=key)
        await self._ledger.append(Unit(key, (Change(key, 0, (proposed,)), noted)))
        return act_id

    async def confirmation(
        self, caller: Caller, act_id: str, act: str, content: str
    ) -> list[Change] | Refusal:
        """The changes by which a second person confirms, for one unit with what is then done.

        Refusals: I-121 to I-124. Raises KeyError for an act that second_person.tsv does not have. The
        authorities that were read must not have moved when the unit becomes durable (StreamMoved).
        """
        now = self._now()
        seen, state = await self._act(act_id)
        if state.proposed is None:
            return Refusal("I-124")
        policy = second_person_acts()[act]
        caller_seen, authorities = await self._read(staff.stream(caller.staff_id), staff.NOBODY, staff.evolve)
        first = state.proposed.staff_id
        first_seen, firsts = await self._read(staff.stream(first), staff.NOBODY, staff.evolve)
        day = _text(now)[:10]
        entitlements = (
            staff.entitled(authorities, policy.confirmer, day),
            staff.entitled(firsts, policy.proposer, day),
        )
        confirmed = second_person.ActConfirmed(self.blind(caller.staff_id), _text(now), caller.staff_id)
        decided = second_person.decide_confirm(
            state, act, self._digest(act, content), entitlements, confirmed
        )
        granted = staff.authority(authorities, day)
        if isinstance(decided, Refusal) or granted is None:
            return decided if isinstance(decided, Refusal) else Refusal("I-122")
        key = second_person.stream(act_id)
        return [
            Change(key, seen, decided),
            Change(staff.stream(caller.staff_id), caller_seen),
            Change(staff.stream(first), first_seen),
            self.operation("confirm", await self._officer(caller, granted), target=key),
        ]

    async def decline(self, caller: Caller, act_id: str) -> Refusal | None:
        """Say no, or take one's own proposal back. Refusals: I-122, I-124."""

        async def declined() -> list[Change] | Refusal:
            seen, state = await self._act(act_id)
            if state.proposed is None:
                return Refusal("I-124")
            confirmer = second_person_acts()[state.proposed.act].confirmer
            now = _text(self._now())
            authorities = await self._standing(caller.staff_id)
            granted = staff.authority(authorities, now[:10])
            said = second_person.ActDeclined(self.blind(caller.staff_id), now, caller.staff_id)
            entitlement = staff.entitled(authorities, confirmer, now[:10])
            decided = second_person.decide_decline(state, entitlement, said)
            if isinstance(decided, Refusal):
                return decided
            if granted is None:
                return Refusal("I-122")
            key = second_person.stream(act_id)
            noted = self.operation("decline", await self._officer(caller, granted), target=key)
            return [Change(key, seen, decided), noted]

        return await self._done(declined)

    async def confirm_grant(
        self, caller: Caller, act_id: str, granted: staff.AuthorityGranted
    ) -> Refusal | None:
        """A member of staff granted authority (`propose` with `grant_content`), and a second one confirms.

        I-121 also where one of the two is who receives it; I-126 for a row that the office has not.
        """

        async def confirmed() -> list[Change] | Refusal:
            _, act = await self._act(act_id)
            proposer = act.proposed.staff_id if act.proposed is not None else ""
            if granted.staff_id in (caller.staff_id, proposer):
                return Refusal("I-121")
            changes = await self.confirmation(caller, act_id, "grant_authority", grant_content(granted))
            refusal = office.covers(await self._office(granted.office), granted.rows)
            if isinstance(changes, Refusal) or refusal is not None:
                return changes if isinstance(changes, Refusal) else refusal or []
            key = staff.stream(granted.staff_id)
            seen, state = await self._read(key, staff.NOBODY, staff.evolve)
            return [*changes, Change(key, seen, staff.decide_grant(state, granted))]

        return await self._done(confirmed)

    # 排他制御

    async def begin_edit(self, officer: Officer, integrated_number: str) -> Refusal | None:
        """From here on only this officer may change the person's record (R-100). I-125."""
        now, who = self._now(), self._desk.person(integrated_number)
        begun = editing.EditBegun(who, self.blind(officer.staff_id), _text(now + EDIT_LIFE), officer.staff_id)
        return await self._decide(
            editing.stream(who),
            None,
            editing.evolve,
            lambda state: editing.decide_begin(state, begun, _text(now)),
            lambda: [self.operation("begin_edit", officer, (integrated_number,))],
        )

    async def end_edit(self, officer: Officer, integrated_number: str) -> None:
        who, by = self._desk.person(integrated_number), self.blind(officer.staff_id)
        await self._decide(
            editing.stream(who),
            None,
            editing.evolve,
            lambda state: editing.decide_end(state, by),
            lambda: [self.operation("end_edit", officer, (integrated_number,))],
        )

    async def may_edit(self, officer: Officer, integrated_number: str) -> Change | Refusal:
        """To be put into the unit that changes the record: that nobody else edits it. I-125."""
        key = editing.stream(self._desk.person(integrated_number))
        seen, state = await self._read(key, None, editing.evolve)
        barred = editing.barred(state, self.blind(officer.staff_id), _text(self._now()))
        return barred or Change(key, seen)

    # 中間ログ

    async def ask_to_read(self, caller: Caller, search: Search) -> str | Refusal:
        """Ask a second person to agree that somebody reads the log about one person. I-122."""
        return await self.propose(caller, READ, search.content)

    async def agree_to_read(self, caller: Caller, search: Search, act_id: str) -> Refusal | None:
        """The second person agrees; from here on who asked may read, until the act lapses. I-121 to I-124."""
        return await self._done(lambda: self.confirmation(caller, act_id, READ, search.content))

    async def read_log(self, caller: Caller, search: Search, act_id: str = "") -> list[LogEntry] | Refusal:
        """Up to AT_MOST entries of the intermediate log, the latest first; the reading is recorded before.

        Refusals: I-122; where the search names a person, I-123 and I-124 unless a second person agreed to it.
        """
        officer = await self.officer(caller, "audit")
        if isinstance(officer, Refusal):
            return officer
        number = search.integrated_number
        if number and second_person.needed(READ):
            _, state = await self._act(act_id)
            digest, who = self._digest(READ, search.content), self.blind(caller.staff_id)
            refusal = second_person.usable(state, READ, digest, who, _text(self._now()))
            if refusal is not None:
                return refusal
        noted = self.operation("read_operations", officer, (number,) if number else (), act_id)
        await self._ledger.append(Unit(noted.stream, (noted,)))
        await self._desk.follower.reach(self._ledger.position)
        found = {r.position: r for r in await self._operations(search)}
        found |= {r.position: r for r in await self._processing(search)}
        entries = sorted((entry(r) for r in found.values()), key=lambda e: (e.at, e.position))
        return entries[: -AT_MOST - 1 : -1]

    async def _operations(self, search: Search) -> list[Recorded]:
        """What officers did."""
        staff_index = self.blind(search.staff_id) if search.staff_id else ""
        person = self._person(search)
        rows = await self._desk.follower.query(
            "SELECT position FROM operation WHERE at >= ? AND at < ? AND (? = '' OR staff = ?) "
            "AND (? = '' OR position IN (SELECT position FROM operation_person WHERE person = ?)) "
            "ORDER BY at DESC LIMIT ?",
            (*search.span, staff_index, staff_index, person, person, AT_MOST),
        )
        return await self._ledger.at([position for (position,) in rows])

    async def _processing(self, search: Search) -> list[Recorded]:
        """What was asked, provided, converted and stored (R-156); of a member of staff, what he asked."""
        person = self._person(search)
        since, until = search.span
        found: list[Recorded] = []
        before = (until, 0)
        while len(found) < AT_MOST:
            rows = await self._desk.follower.query(
                "SELECT DISTINCT requested_at, request FROM provision_record WHERE requested_at >= ? "
                "AND (requested_at, request) < (?, ?) AND (? = '' OR person = ?) "
                "ORDER BY requested_at DESC, request DESC LIMIT ?",
                (since, *before, person, person, AT_MOST),
            )
            opened = await self._ledger.at([position for _, position in rows])
            found += [r for r in opened if search.staff_id in ("", getattr(r.event, "staff_id", ""))]
            if len(rows) < AT_MOST:
                break
            before = rows[-1]
        if search.staff_id:
            return found
        for asked in list(found):
            found += (await self._ledger.stream(asked.stream))[1:]
        if person:
            for key in (link_code.stream(person), hold.stream(person)):
                found += await self._ledger.stream(key)
            rows = await self._desk.follower.query(
                "SELECT position FROM reference_database WHERE person = ?", (person,)
            )
            found += await self._ledger.at([position for (position,) in rows])
        return [r for r in found if since <= r.at < until]

    def _person(self, search: Search) -> str:
        return self._desk.person(search.integrated_number) if search.integrated_number else ""

    # Streams

    async def _standing(self, staff_id: str) -> staff.State:
        return (await self._read(staff.stream(staff_id), staff.NOBODY, staff.evolve))[1]

    async def _office(self, code: str) -> office.State:
        key = office.stream(self._desk.linkage.agency.code, code)
        return (await self._read(key, None, office.evolve))[1]

    async def _officer(self, caller: Caller, granted: staff.AuthorityGranted) -> Officer:
        registered = await self._office(granted.office)
        name = registered.name if registered is not None else granted.office
        return Officer(caller.staff_id, name, granted.official_role, caller.terminal, caller.purpose)

    async def _act(self, act_id: str) -> tuple[int, second_person.State]:
        key = second_person.stream(act_id)
        return await self._read(key, second_person.State(), second_person.evolve)

    async def _read(self, key: str, start: S, evolve: Callable[[S, Any], S]) -> tuple[int, S]:
        """How many events a stream has, and what they make."""
        recorded = await self._ledger.stream(key)
        state = start
        for happened in recorded:
            state = evolve(state, happened.event)
        return len(recorded), state

    async def _decide(
        self,
        key: str,
        start: S,
        evolve: Callable[[S, Any], S],
        decide: Callable[[S], tuple[Any, ...] | Refusal],
        beside: Callable[[], Sequence[Change]] = tuple,
    ) -> Refusal | None:
        """Load a stream, decide, append with what goes `beside` it; again if somebody was faster."""
        while True:
            seen, state = await self._read(key, start, evolve)
            decided = decide(state)
            if isinstance(decided, Refusal) or not decided:
                return decided if isinstance(decided, Refusal) else None
            unit = Unit(f"{key}#{seen + 1}/{self._token()}", (Change(key, seen, decided), *beside()))
            try:
                await self._ledger.append(unit)
            except StreamMoved:
                continue
            return None

    async def _done(self, decide: Callable[[], Awaitable[list[Change] | Refusal]]) -> Refusal | None:
        """Append what was decided in one unit; decide again if somebody was faster."""
        while True:
            decided = await decide()
            if isinstance(decided, Refusal):
                return decided
            try:
                await self._ledger.append(Unit(f"act/{self._token()}", tuple(decided)))
            except StreamMoved:
                continue
            return None

    def _terminal(self, caller: Caller) -> str:
        return self._ledger.vault.blind("terminal", caller.terminal)

    def _now(self) -> datetime:
        return self._desk.clock()

    def _token(self) -> str:
        return self._desk._random(16).hex()

    def _digest(self, act: str, content: str) -> str:
        return self._ledger.vault.blind("act", f"{act}\n{content}")


def grant_content(granted: staff.AuthorityGranted) -> str:
    """What a second person confirms when a member of staff grants authority."""
    return repr(granted)


def entry(recorded: Recorded) -> LogEntry:
    """The entry that an event makes in the intermediate log."""
    e = recorded.event
    kind = e.wire.name.partition(".")[0]

    def sealed(name: str, default: Any) -> Any:
        return default if recorded.erased else getattr(e, name, default)

    subjects = sealed("subjects", ()) or (sealed("integrated_number", ""),)
    operated = isinstance(e, operation.OperationRecorded)
    return LogEntry(
        position=recorded.position,
        at=recorded.at,
        log=e.log if operated else "business",
        function=_FUNCTIONS.get(kind, "linkage_confirmation"),
        operation=e.operation if operated else e.wire.name,
        staff_id=sealed("staff_id", ""),
        office=getattr(e, "office", ""),
        official_role=getattr(e, "official_role", ""),
        subjects=tuple(number for number in subjects if number),
        target=e.target if operated else recorded.stream,
        purpose=sealed("purpose", "") if operated else getattr(e, "affair", ""),
        terminal=sealed("terminal", ""),
    )


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
