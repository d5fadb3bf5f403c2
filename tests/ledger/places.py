"""What the tests of the ledger share: a signer, stores that can be opened again, units of plain bytes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

from eventsourcing.persistence import StoredEvent

from broker.ledger.folder import checkpoint_signer
from broker.ledger.notes import NoteSigner
from broker.ledger.postgres import PostgresDatabase
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from broker.ledger.store import Outcome, Store, StoredUnit

SIGNER = NoteSigner("test/ledger", bytes(range(32)))
AT = "2026-11-21T00:30:00.000000+00:00"
sign = checkpoint_signer(SIGNER)


def open_sqlite(path: Path) -> SQLiteStore:
    return SQLiteStore(LedgerDatastore(path), sign)


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The store of a folder, also in another process: the file `database` in it tells which."""
    address = folder / "database"
    if address.exists():
        url, origin = address.read_text(encoding="utf-8").split()
        with closing(PostgresDatabase(url)) as database:
            yield database.store(origin, sign)
    else:
        with closing(open_sqlite(folder / "events.sqlite")) as store:
            yield store


class Place:
    """Where a store lives. What is not durable stays open instead of being opened again."""

    def __init__(self, make: Callable[[], Store], *, durable: bool) -> None:
        self._make = make
        self.durable = durable
        self.store = make()

    def reopen(self) -> Store:
        if self.durable:
            self.store.close()
            self.store = self._make()
        return self.store

    def before_and_after(self) -> Iterator[Store]:
        """The store as it stands, and then opened again."""
        yield self.store
        yield self.reopen()


def unit(message_id: str, *changes: tuple[str, int, int]) -> StoredUnit:
    """A unit of plain bytes; each change is stream, version seen, number of events."""
    events = tuple(
        StoredEvent(
            originator_id=stream,
            originator_version=seen + number,
            topic="plain/1",
            state=f"{message_id} {stream} {number}".encode(),
        )
        for stream, seen, count in changes
        for number in range(1, count + 1)
    )
    return StoredUnit(message_id, {stream: seen for stream, seen, _ in changes}, events)


def stored(store: Store, *units: StoredUnit) -> list[Outcome]:
    """Append in one batch what must be accepted."""
    outcomes: list[Outcome] = []
    for result in store.append(units, AT):
        assert isinstance(result, Outcome), result
        outcomes.append(result)
    return outcomes


def plain_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1 over leaf hashes, word for word and with nothing of ours in it."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + plain_root(leaves[:split]) + plain_root(leaves[split:])).digest()


def tiles_of(leaves: Sequence[bytes]) -> dict[tuple[int, int], bytes]:
    """All tiles over leaf hashes, level by level, full and partial, from plain_root alone."""
    tiles: dict[tuple[int, int], bytes] = {}
    level, row = 0, list(leaves)
    while row:
        parts = [row[start : start + 256] for start in range(0, len(row), 256)]
        tiles |= {(level, index): b"".join(part) for index, part in enumerate(parts)}
        level, row = level + 1, [plain_root(part) for part in parts if len(part) == 256]
    return tiles
