"""Stores that keep what was durable when a process is killed, and fail now and then."""

from collections.abc import Sequence

from eventsourcing.persistence import OperationalError

from broker.ledger.store import Commit, Conflict, MemoryStore, Outcome, SignCheckpoint, StoredUnit
from ops.simulate.clockwork import PROCESS, Clockwork, Killed

KILLED, FAILED = 0.006, 0.006
"""Shares of commits at which the process is killed, and the store fails: half of each before, half after."""


class Disk(MemoryStore):
    """The store of one ledger over all lives of its party."""

    def __init__(self, name: str, sign: SignCheckpoint, clockwork: Clockwork) -> None:
        super().__init__(sign)
        self.name = name
        self._clockwork = clockwork

    def copy(self, clockwork: Clockwork) -> "Disk":
        """The same contents, to go on from in another run. Events are shared: nothing ever changes them."""
        other = Disk(self.name, self._sign, clockwork)
        other._events = self._events.copy()
        other._leaves = self._leaves.copy()
        other._streams = {stream: events.copy() for stream, events in self._streams.items()}
        other._units = self._units.copy()
        other._nodes = self._nodes.copy()
        other._heads = self._heads.copy()
        return other

    def append(self, units: Sequence[StoredUnit], at: str) -> list[Outcome | Conflict]:
        """As a store does; or the machine dies, or the database fails, before or after it was durable."""
        self._strike("before a commit")
        results = super().append(units, at)
        self._strike("after a commit")
        return results

    def write(self, commit: Commit) -> None:
        super().write(commit)
        for stored in commit.events:
            kind = str(stored.originator_id).partition("/")[0]
            self._clockwork.note(self.name, "stores", kind, stored.originator_version, stored.topic)

    def _strike(self, when: str) -> None:
        clockwork, process = self._clockwork, PROCESS.get()
        if process is not None and clockwork.chance(KILLED / 2):
            clockwork.fault(f"killed {when}", self.name)
            process.kill()
            raise Killed
        if clockwork.chance(FAILED / 2):
            clockwork.fault(f"store failed {when}", self.name)
            raise OperationalError("the disk of this ledger is away")
