"""What the ledgers of a run say, opened with the vaults, compared with each other and with what was asked."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from adapters.business.records import InquiryRecord
from adapters.network.reference.codes import LinkCodeIssued
from adapters.network.reference.exchange import (
    AnswerRefused,
    ExchangeAnswered,
    ExchangePermitted,
    ExchangeRefused,
)
from broker.intermediate.inquiry import InquiryAnswered, InquiryRefused, InquiryRequested
from broker.intermediate.link_code import LinkCodeAcquired
from broker.intermediate.provision import InformationProvided, ProvisionRefused, ProvisionRequested
from broker.intermediate.replica import ReplicaRegistered
from broker.ledger.events import Recorded
from broker.ledger.folder import LedgerFolder
from ops.daemons import agency_folder, network_folder
from ops.demo import ANSWERING, ASKING
from tests.crash.orders import UNREGISTERED, Cities, Expected

CLOSING = (InquiryRefused, InquiryAnswered)
PROVIDING = (InformationProvided, ProvisionRefused)
# What every one of the three records must say alike (Act art. 23(1) and (3)).
COMMON = ("inquirer", "provider", "law_version", "law_row", "information", "items", "requested_at", "office")


class Book:
    """All events of one ledger, opened, by stream and by position."""

    def __init__(self, folder: LedgerFolder) -> None:
        self.streams: dict[str, list[Any]] = defaultdict(list)
        self.at: dict[int, Recorded] = {}
        store, registry = folder.ledger.store, folder.ledger.registry
        for stored in store.events(0, store.head().size):
            recorded = registry.decode(stored, folder.vault)
            self.streams[recorded.stream].append(recorded.event)
            self.at[recorded.position] = recorded
        folder.close()

    def one(self, stream: str, *types: type[Any]) -> Any:
        """The only event of these types in a stream."""
        found = [e for e in self.streams[stream] if isinstance(e, types)]
        assert len(found) == 1, f"{stream}: {[type(e).__name__ for e in self.streams[stream]]}"
        return found[0]

    def of(self, kind: type[Any]) -> list[Any]:
        return [recorded.event for recorded in self.at.values() if isinstance(recorded.event, kind)]


class Evidence:
    """The three books of a run."""

    def __init__(self, folder: Path) -> None:
        self.asking = Book(agency_folder(folder / ASKING[0], ASKING[0]))
        self.answering = Book(agency_folder(folder / ANSWERING[0], ANSWERING[0]))
        self.network = Book(network_folder(folder / "network"))

    def check(self, orders: Mapping[str, tuple[InquiryRecord, Expected]], cities: Cities) -> None:
        """Each order once and as expected; nothing in any book that nobody ordered."""
        ids = {uuid5(NAMESPACE_URL, f"renkei/{ASKING[0]}/{request}").hex: request for request in orders}
        assert sorted(e.inquiry_id for e in self.asking.of(InquiryRequested)) == sorted(ids)
        permitted = {inquiry_id for inquiry_id in ids if self._inquiry(inquiry_id, *orders[ids[inquiry_id]])}
        numbers = {e.message_id: e.processing_number for e in self.network.of(ExchangePermitted)}
        assert len(self.network.of(ExchangePermitted)) == len(numbers)
        assert numbers.keys() == permitted
        assert sorted(e.processing_number for e in self.answering.of(ProvisionRequested)) == sorted(
            numbers.values()
        )
        assert self.network.of(AnswerRefused) == []
        for inquiry_id, number in numbers.items():
            self._exchange(inquiry_id, number, orders[ids[inquiry_id]][1], cities)
        self._codes(cities)

    def _codes(self, cities: Cities) -> None:
        """Who is registered and in the registry has one code in each city, and both mean one person."""
        issued = {(e.agency, e.link_code): e.person for e in self.network.of(LinkCodeIssued)}
        assert len(issued) == len(self.network.of(LinkCodeIssued))
        persons: list[dict[int, str]] = []
        for book, agency, city in (
            (self.asking, ASKING[0], cities.asking),
            (self.answering, ANSWERING[0], cities.answering),
        ):
            acquired = {e.integrated_number: issued[agency, e.link_code] for e in book.of(LinkCodeAcquired)}
            assert len(acquired) == len(book.of(LinkCodeAcquired))
            entitled = {who: r.integrated_number for who, r in city.items() if who not in UNREGISTERED}
            assert sorted(acquired) == sorted(entitled.values())
            persons.append({who: acquired[number] for who, number in entitled.items()})
        here, there = persons
        assert {who: here[who] for who in there} == there
        assert len(set(here.values())) == len(here)

    def _inquiry(self, inquiry_id: str, order: InquiryRecord, expected: Expected) -> bool:
        """The asking side of an order; whether it came as far as the provider."""
        stream = f"inquiry/{inquiry_id}"
        request = self.asking.one(stream, InquiryRequested)
        assert request.subjects == order.subjects
        closed = self.asking.one(stream, *CLOSING)
        if expected.code:
            assert isinstance(closed, InquiryRefused), f"{order.request_id} was answered"
            assert closed.code == expected.code, order.request_id
        else:
            assert isinstance(closed, InquiryAnswered), f"{order.request_id}: {closed}"
            assert closed.codes == expected.subjects, order.request_id
        if expected.code.startswith("N-"):
            refused = self.network.one(f"exchange/{closed.processing_number}", ExchangeRefused)
            assert (refused.code, refused.decided_at) == (closed.code, closed.decided_at)
            assert _common(refused, "affair", "law_version") == _common(request, "affair", "law_version")
        return getattr(closed, "by", "provider") == "provider"

    def _exchange(self, inquiry_id: str, number: str, expected: Expected, cities: Cities) -> None:
        """Asked once, answered once, and told alike by all three; and it is the right person's data."""
        request = self.asking.one(f"inquiry/{inquiry_id}", InquiryRequested)
        closed = self.asking.one(f"inquiry/{inquiry_id}", *CLOSING)
        permitted = self.network.one(f"exchange/{number}", ExchangePermitted)
        answered = self.network.one(f"exchange/{number}", ExchangeAnswered)
        asked = self.answering.one(f"provision/{number}", ProvisionRequested)
        provided = self.answering.one(f"provision/{number}", *PROVIDING)
        assert closed.processing_number == number
        assert _common(request) == _common(permitted) == _common(asked)
        assert (asked.affair, permitted.affair) == (request.affair, request.affair)
        assert provided.answer_message == answered.message_id
        if isinstance(provided, ProvisionRefused):
            assert provided.code == answered.code == closed.code == expected.code
            assert provided.decided_at == answered.answered_at == closed.decided_at
            return
        assert answered.code == ""
        assert provided.provided_at == answered.answered_at == closed.provided_at
        assert provided.codes == closed.codes
        for place, code in enumerate(closed.codes):
            payload = closed.payloads[place]
            if code:
                assert payload == {}
                continue
            source = self.answering.at[provided.sources[place]].event
            assert isinstance(source, ReplicaRegistered)
            assert source.integrated_number == asked.subjects[place]
            data = cities.data(request.subjects[place])
            assert source.payload == data
            assert payload == {item: data[item] for item in request.items if item in data}


def _common(event: Any, *but: str) -> dict[str, Any]:
    return {name: getattr(event, name) for name in COMMON if name not in but}
