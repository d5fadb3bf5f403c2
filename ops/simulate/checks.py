"""What must be so once all is calm: the ledgers of all parties against each other, the law, and the truth.

Nothing here asks the product for a judgement: events are opened and compared. The table of the law is read
row by row, a hold counts from its event to its release, and an answer belongs to whom the plan says.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from adapters.network.reference import codes, exchange
from adapters.network.reference.letters import LetterRelayed
from broker.addressing.person import PersonRegistered
from broker.intermediate import hold, inquiry, notice, provision
from broker.intermediate.link_code import LinkCodeAcquired, LinkCodeRetired
from broker.intermediate.received_notice import NoticeReceived
from broker.intermediate.replica import ReplicaRegistered
from broker.ledger.events import Recorded
from broker.ledger.folder import LedgerFolder
from broker.ledger.projections import ProjectionTables
from ops.simulate.workload import Truth, permitted
from ops.simulate.world import NETWORK_NAME, World

SAMPLE = 10  # ledgers whose projections are built anew and compared


class Checks:
    """Reads the ledgers of a world that stands still; `violations` are (rule, where)."""

    def __init__(self, world: World, truth: Truth) -> None:
        if world.hub is None:
            raise ValueError("the network never ran")
        self._world = world
        self._truth = truth
        self._hub = world.hub
        self.violations: list[tuple[str, str]] = []
        self.outcomes: Counter[str] = Counter()
        self._network = opened(self._hub.folder)
        self._offices = {code: opened(office.folder) for code, office in world.offices.items()}

    def run(self) -> None:
        for check in (
            self.orders_are_kept_and_end,
            self.nobody_is_answered_twice,
            self.three_sides_agree,
            self.notices_agree,
            self.the_law_permits_it,
            self.held_data_stays,
            self.answers_are_about_whom_was_asked,
            self.codes_are_one_to_one,
            self.codes_never_meet,
            self.what_was_acknowledged_is_there,
            self.followers_skip_nothing,
            self.nothing_piles_up,
        ):
            check()

    def _broken(self, rule: Callable[[], None], *where: object) -> None:
        self.violations.append((rule.__name__.replace("_", " "), " ".join(map(str, where))))

    # -- inquiries --------------------------------------------------------------------------------------

    def orders_are_kept_and_end(self) -> None:
        """No inquiry is lost: each order that was taken is recorded once, and came to an end."""
        rule = self.orders_are_kept_and_end
        recorded: Counter[tuple[str, str]] = Counter()
        for code, events in self._offices.items():
            for stream in streams(events, "inquiry").values():
                request = stream[0].event
                if not isinstance(request, inquiry.InquiryRequested):
                    continue
                recorded.update((code, request_id) for request_id in request.request_ids)
                open_, outcomes = ended(stream)
                self.outcomes.update(outcomes)
                if open_:
                    self._broken(rule, code, request.request_ids[0], "is open:", *open_)
        for key, order in self._truth.orders.items():
            verdict = self._truth.verdicts.get(key)
            if verdict is None:
                self._broken(rule, *key, "was never acknowledged")
            elif recorded[key] > 1 or (not recorded[key] and not verdict.startswith("B-")):
                self._broken(rule, *key, order.kind, f"is recorded {recorded[key]} times, told {verdict!r}")

    def nobody_is_answered_twice(self) -> None:
        rule = self.nobody_is_answered_twice
        sides: list[tuple[str, list[Recorded], str, tuple[type[Any], ...]]]
        sides = [(NETWORK_NAME, self._network, "exchange", (exchange.ExchangeAnswered,))]
        for code, events in self._offices.items():
            sides.append((code, events, "inquiry", (inquiry.InquiryAnswered,)))
            provided = (provision.InformationProvided, provision.ProvisionRefused)
            sides.append((code, events, "provision", provided))
        for name, events, kind, answers in sides:
            for key, stream in streams(events, kind).items():
                told = Counter(p for r in stream if isinstance(r.event, answers) for p in r.event.persons)
                if twice := sorted(place for place, times in told.items() if times > 1):
                    self._broken(rule, name, key, "persons", *twice)
        asked = Counter(
            (r.event.inquirer, r.event.message_id)
            for r in self._network
            if isinstance(r.event, (exchange.ExchangePermitted, exchange.ExchangeRefused))
        )
        for (agency, message_id), times in asked.items():
            if times > 1:
                self._broken(rule, agency, "inquiry", message_id, f"was decided {times} times")

    def three_sides_agree(self) -> None:
        """What the network relayed was provided and arrived; what was provided was relayed, or says not."""
        rule = self.three_sides_agree
        relayed = {
            r.event.message_id: r.event
            for r in self._network
            if isinstance(r.event, exchange.ExchangeAnswered)
        }
        provided: dict[str, Any] = {}
        taken: dict[str, Any] = {}
        for events in self._offices.values():
            lost = {r.event.answer_message for r in events if isinstance(r.event, provision.AnswerNotRelayed)}
            for r in events:
                if isinstance(r.event, provision.InformationProvided) and r.event.answer_message not in lost:
                    provided[r.event.answer_message] = r.event
                elif isinstance(r.event, inquiry.InquiryAnswered):
                    taken[r.event.answer_message] = r.event
        told = {m: e for m, e in relayed.items() if not e.code}
        for name, one, other in (
            ("relayed and not provided", told, provided),
            ("provided and not relayed", provided, told),
            ("relayed and not taken", told, taken),
            ("taken and not relayed", taken, relayed),
        ):
            for message in sorted(one.keys() - other.keys()):
                self._broken(rule, name, message)
        for message in sorted(told.keys() & provided.keys() & taken.keys()):
            places = {told[message].persons, provided[message].persons, taken[message].persons}
            given = [not code for code in provided[message].codes]
            got = [not code for code in taken[message].codes]
            if len(places) > 1 or given != got:
                self._broken(rule, "differs", message)

    def notices_agree(self) -> None:
        """A notice that its sender counts as sent passed the network and arrived, each once; no other did."""
        rule = self.notices_agree
        sent, came = Counter[str](), Counter[str]()
        for code, events in self._offices.items():
            for key, stream in streams(events, "notice").items():
                told = [r.event for r in stream]
                if any(isinstance(e, notice.NoticeSent) for e in told):
                    refused = any(isinstance(e, notice.NoticeRefused) for e in told)
                    sent[told[0].notice] += not refused
                    if not refused and len(told) == 1:
                        self._broken(rule, code, key, "is open")
            came.update(r.event.notice for r in events if isinstance(r.event, NoticeReceived))
        letters = [r.event for r in self._network if isinstance(r.event, LetterRelayed)]
        passed = Counter(e.message_id for e in letters if e.kind == "notice")
        self.outcomes["notices"] += passed.total()
        for name, one in (("sent", +sent), ("relayed", passed), ("received", came)):
            for message in sorted(
                key for key in one if not one[key] == sent[key] == passed[key] == came[key]
            ):
                self._broken(rule, name, message, sent[message], passed[message], came[message])

    def the_law_permits_it(self) -> None:
        """By the table itself: row, kinds and information, whatever the product thinks of it."""
        rule, agencies = self.the_law_permits_it, self._world.furniture.agencies
        parts: list[Any] = [r.event for r in self._network if isinstance(r.event, exchange.ExchangePermitted)]
        for events in self._offices.values():
            for stream in streams(events, "provision").values():
                if any(isinstance(r.event, provision.InformationProvided) for r in stream):
                    parts += [r.event for r in stream if isinstance(r.event, provision.ProvisionRequested)]
        for r in self._network:
            if isinstance(r.event, LetterRelayed) and r.event.persons:
                e = r.event  # who is told is who could have asked
                if not permitted(agencies[e.receiver], agencies[e.sender], e.law_row, e.information):
                    self._broken(rule, "notice", e.message_id, e.sender, e.receiver, "row", e.law_row)
        for e in parts:
            if not permitted(agencies[e.inquirer], agencies[e.provider], e.law_row, e.information):
                self._broken(rule, e.processing_number, e.inquirer, e.provider, "row", e.law_row)

    def held_data_stays(self) -> None:
        """From a hold to its release nothing goes out by itself, and what was held only by an officer."""
        rule = self.held_data_stays
        for code, events in self._offices.items():
            held: dict[str, set[hold.Key]] = defaultdict(set)
            requests: dict[str, provision.ProvisionRequested] = {}
            waiting: dict[str, set[int]] = defaultdict(set)
            released: dict[str, set[int]] = defaultdict(set)
            not_sent = {r.stream for r in events if isinstance(r.event, notice.NoticeRefused)}
            for r in events:
                match r.event:
                    case notice.NoticeSent() as e:
                        if r.stream not in not_sent and any(held[person] for person in e.persons):
                            self._broken(rule, code, r.stream)
                    case hold.HoldSet() as e:
                        held[e.person].add(e.key)
                    case hold.HoldReleased() as e:
                        held[e.person].discard(e.key)
                    case provision.ProvisionRequested() as e:
                        requests[r.stream] = e
                    case provision.ProvisionHeld() as e:
                        waiting[r.stream] |= set(e.persons)
                    case provision.ProvisionReleased() as e:
                        released[r.stream] |= set(e.persons) - set(e.withheld_persons)
                    case provision.InformationProvided() as e:
                        for place, refused in zip(e.persons, e.codes, strict=True):
                            barred = held[requests[r.stream].persons[place]] or place in waiting[r.stream]
                            if not refused and barred and place not in released[r.stream]:
                                self._broken(rule, code, r.stream, "person", place)

    def answers_are_about_whom_was_asked(self) -> None:
        """An answer holds what its provider registered about this very person, and only what was asked."""
        rule = self.answers_are_about_whom_was_asked
        for code, events in self._offices.items():
            for stream in streams(events, "inquiry").values():
                request = stream[0].event
                if not isinstance(request, inquiry.InquiryRequested):
                    continue
                people = [
                    person
                    for request_id in request.request_ids
                    for person in self._truth.orders[code, request_id].people
                ]
                for r in stream:
                    if not isinstance(r.event, inquiry.InquiryAnswered):
                        continue
                    for place, refused, payload in zip(
                        r.event.persons, r.event.codes, r.event.payloads, strict=True
                    ):
                        key = (request.provider, people[place], request.fiscal_year)
                        fits = any(
                            payload.items() <= held.items() for held in self._truth.payloads[key]
                        ) and payload.keys() <= set(request.items)
                        if not refused and not fits:
                            self._broken(rule, code, request.request_ids[0], "person", place)

    # -- link codes -------------------------------------------------------------------------------------

    def codes_are_one_to_one(self) -> None:
        """A code stands for one person and agency; where it was acquired, for the person that it is about."""
        rule = self.codes_are_one_to_one
        issued = self._issued()
        if len({code for code, _, _ in issued}) < len(issued):
            self._broken(rule, "one code was issued twice")
        marks = {code: (agency, mark) for code, agency, mark in issued}
        in_force = self._in_force()
        people: dict[str, set[int]] = defaultdict(set)
        for agency, events in self._offices.items():
            numbers = self._world.furniture.numbers[agency]
            valid: dict[str, str] = {}
            for r in events:
                match r.event:
                    case LinkCodeAcquired() as e:
                        owner, mark = marks.get(e.link_code, ("", ""))
                        if owner != agency:
                            self._broken(rule, agency, "has a code that was not issued to it, at", r.position)
                        if e.person in valid:
                            self._broken(rule, agency, "acquired a second code, at", r.position)
                        people[mark].add(numbers.index(e.integrated_number))
                        valid[e.person] = e.link_code
                    case LinkCodeRetired() as e:
                        valid.pop(e.person)
            if len(set(valid.values())) < len(valid):
                self._broken(rule, agency, "has one code for two people")
            if set(valid.values()) != in_force[agency]:
                self._broken(
                    rule, agency, "and the network differ in", set(valid.values()) ^ in_force[agency]
                )
        for persons in people.values():
            if len(persons) > 1:
                self._broken(rule, "one mark at the network stands for", len(persons), "people")

    def codes_never_meet(self) -> None:
        """No agency ever hears a code of another, and the registry and business systems hear none at all."""
        owners = {code.encode(): agency for code, agency, _ in self._issued()}
        for party, heard in sorted(self._world.heard.items()):
            if party == NETWORK_NAME:
                continue
            for agency in sorted({owners[word] for word in heard & owners.keys()} - {party}):
                self._broken(self.codes_never_meet, party, "heard a code of", agency)

    def _in_force(self) -> dict[str, set[str]]:
        """By agency the codes that the network counts as valid and taken."""
        valid: dict[tuple[str, str], str] = {}
        taken: dict[str, set[str]] = defaultdict(set)
        for r in self._network:
            match r.event:
                case codes.LinkCodeIssued() as e:
                    valid[e.agency, e.person] = e.link_code
                case codes.LinkCodeTaken() as e:
                    taken[e.agency].add(valid[e.agency, e.person])
                case codes.LinkCodeWithdrawn() as e:
                    taken[e.agency].discard(valid.pop((e.agency, e.person)))
        return taken

    def _issued(self) -> list[tuple[str, str, str]]:
        """(code, agency, the network's mark of the person)."""
        events = (r.event for r in self._network if isinstance(r.event, codes.LinkCodeIssued))
        return [(e.link_code, e.agency, e.person) for e in events]

    # -- ledgers ----------------------------------------------------------------------------------------

    def what_was_acknowledged_is_there(self) -> None:
        rule, numbers = self.what_was_acknowledged_is_there, self._world.furniture.numbers
        residents, replicas = set(), set()
        for code, office in self._world.offices.items():
            places = {number: place for place, number in enumerate(numbers[code])}
            residents |= {
                (code, places[r.event.integrated_number])
                for r in opened(office.people)
                if isinstance(r.event, PersonRegistered)
            }
            replicas |= {
                (code, places[r.event.integrated_number], r.event.fiscal_year)
                for r in self._offices[code]
                if isinstance(r.event, ReplicaRegistered)
            }
        for agency, person in sorted(self._truth.residents - residents):
            self._broken(rule, "resident", agency, person)
        for agency, person, year in sorted(self._truth.replicas - replicas):
            self._broken(rule, "record", agency, person, year)

    def followers_skip_nothing(self) -> None:
        """Every projection stands at the end of its ledger with nothing parked; some are built anew, too."""
        rule = self.followers_skip_nothing
        folders = list(self._folders())
        for folder in folders:
            size = folder.ledger.store.head().size
            for name, (position, _) in folder.tables.tracking().items():
                if position != size:
                    self._broken(rule, folder.ledger.name, name, "stands at", position, "of", size)
            for parked in folder.tables.parked():
                self._broken(rule, folder.ledger.name, parked.projection, "parked", parked.position)
        rng = self._world.clockwork.rng
        for folder in [self._hub.folder, *rng.sample(folders, min(SAMPLE, len(folders)))]:
            path = self._world.folder / "anew" / folder.ledger.name / "projections.sqlite"
            anew = ProjectionTables(path, folder.tables.projections)
            try:
                anew.catch_up(folder.ledger.store, folder.ledger.registry)
                new, live = anew.digests(), folder.tables.digests()
            finally:
                anew.close()
            for name in (name for name in new if new[name] != live[name]):
                self._broken(rule, folder.ledger.name, name, "differs from what is built anew")

    def nothing_piles_up(self) -> None:
        """Queues are empty once all is calm, and tasks are not more than those who wait."""
        rule, hub = self.nothing_piles_up, self._hub
        waiting = {"polls at the network": len(hub.core._polls) - 2 * len(self._world.offices)}
        for folder in self._folders():
            waiting[f"units of {folder.ledger.name}"] = len(folder.ledger._waiting)
        for code, office in self._world.offices.items():
            waiting[f"messages to send of {code}"] = office.folder.tables.query(
                "SELECT COUNT(*) FROM outbox"
            )[0][0]
            waiting[f"acquisition numbers of {code}"] = len(office.staging.of("person"))
        for name, party in self._world.parties.items():
            nursery = party.up.nursery if party.up is not None else None
            if nursery is None:
                self._broken(rule, name, "is not up")
            else:
                waiting[f"tasks of {name}"] = len(nursery.child_tasks) - 3 * len(self._world.parties)
        for what, count in waiting.items():
            if count > 0:
                self._broken(rule, what, count)

    def _folders(self) -> Iterator[LedgerFolder]:
        yield self._hub.folder
        for office in self._world.offices.values():
            yield office.folder
            yield office.people


def opened(folder: LedgerFolder) -> list[Recorded]:
    """All events of a ledger, opened."""
    ledger = folder.ledger
    return [
        ledger.registry.decode(stored, ledger.vault) for stored in ledger.store.events(0, ledger.position)
    ]


def streams(events: list[Recorded], kind: str) -> dict[str, list[Recorded]]:
    """The streams of one kind, each in its order."""
    found: dict[str, list[Recorded]] = defaultdict(list)
    for r in events:
        if r.stream.startswith(f"{kind}/"):
            found[r.stream].append(r)
    return found


def ended(stream: list[Recorded]) -> tuple[list[int], list[str]]:
    """The places of persons of whom nothing was said and nothing ended; and what was said of each other."""
    said: dict[int, str] = {}
    rest = ""
    for r in stream[1:]:
        match r.event:
            case inquiry.InquiryPermitted(codes=refused):
                said |= {place: f"refused {code}" for place, code in enumerate(refused) if code}
            case inquiry.InquiryAnswered() as e:
                said |= {
                    place: f"refused {code}" if code else "answered"
                    for place, code in zip(e.persons, e.codes, strict=True)
                }
            case inquiry.InquiryRefused() as e:
                rest = f"refused {e.code}"
            case inquiry.InquiryWithdrawn():
                rest = "withdrawn"
            case inquiry.InquiryExpired():
                rest = "expired"
    places = range(len(stream[0].event.persons))
    told = [said.get(place) or rest for place in places]
    return [place for place in places if not told[place]], [each for each in told if each]
