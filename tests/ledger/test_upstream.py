"""The durable stores stand on eventsourcing: what that library asks of its own recorders holds for them too.

Left out is AggregateRecorderTestCase: it is for recorders without notification ids (it wants `insert_events`
to return None, which no ApplicationRecorder does, upstream's own neither); what it asks of inserting and
selecting is asked below by the others, and of conflicts within a call in this file.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import IntegrityError, Notification, StoredEvent, Tracking
from eventsourcing.tests import persistence as upstream

from broker.ledger.events import leaf_data
from broker.ledger.merkle import leaf_hash
from broker.ledger.postgres import PostgresDatabase, PostgresStore
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from broker.ledger.verify import verify_file
from tests.ledger.places import SIGNER, sign
from tests.servers import Databases, new_ledger


class _OnAFile(upstream.RecorderTestCase):
    """Also checks, after each of upstream's tests, that what it stored is a valid ledger."""

    path: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "events.sqlite"

    def create_recorder(self) -> SQLiteStore:
        datastore = LedgerDatastore(self.path, originator_id_type="uuid")
        # Upstream lets ten threads queue for the one connection that writes; how long depends on the machine.
        datastore.pool.pool_timeout = 600
        store = SQLiteStore(datastore, sign)
        self.addCleanup(self.check, store)
        return store

    def check(self, store: SQLiteStore | PostgresStore) -> None:
        events = store.events(0, 1_000_000)
        tiles = b"".join(store.tile(0, index) for index in range(-(-len(events) // 256)))
        assert tiles == b"".join(leaf_hash(leaf_data(event)) for event in events)
        store.close()


class _OfUUIDs(PostgresStore):
    """Streams are named by text here; upstream's tests name them by UUIDs."""

    def select_events(self, originator_id: UUID | str, **kwargs: Any) -> Sequence[StoredEvent]:
        found = super().select_events(UUID(str(originator_id)).hex, **kwargs)
        return [replace(event, originator_id=UUID(str(event.originator_id))) for event in found]

    def select_notifications(self, *args: Any, **kwargs: Any) -> Sequence[Notification]:
        found = super().select_notifications(*args, **kwargs)
        return [replace(event, originator_id=UUID(str(event.originator_id))) for event in found]


class _OnAServer(_OnAFile):
    """The same on PostgreSQL, with the table of tracking that a ledger does not have."""

    version = "postgresql18"
    database: PostgresDatabase

    @pytest.fixture(autouse=True)
    def _server(self, databases: Databases) -> None:
        self.database = databases[self.version]

    def create_recorder(self) -> PostgresStore:  # type: ignore[override] # the other store
        plain = new_ledger(self.database, sign)()
        assert isinstance(plain, PostgresStore)
        store = _OfUUIDs(plain.datastore, sign)  # type: ignore[arg-type] # its own datastore
        tracking = next(s for s in store.sql_create_statements if "tracking" in s.as_string())
        with self.database.connection() as connection:
            connection.execute(tracking)
        store.insert_tracking(Tracking("__migration__", 1))  # as upstream's recorder does when it makes it
        self.addCleanup(self.check, store)
        return store


class ApplicationRecorderTest(_OnAFile, upstream.ApplicationRecorderTestCase[SQLiteStore]):
    """Versions begin at 1."""


class ProcessRecorderTest(_OnAFile, upstream.ProcessRecorderTestCase):
    """Events and tracking in one transaction."""


class TrackingRecorderTest(_OnAFile, upstream.TrackingRecorderTestCase):
    """The tracking table beside the events."""


class NonInterleavingTest(_OnAFile, upstream.NonInterleavingNotificationIDsBaseCase):
    """Two writers at once."""


class RecorderDoorTest(_OnAFile):
    """What upstream does not ask, at the same door."""

    def test_a_call_is_whole_or_absent(self) -> None:
        store = self.create_recorder()
        stream = uuid4()
        first, second = (
            StoredEvent(originator_id=stream, originator_version=v, topic="t", state=b"") for v in (1, 2)
        )
        for events in ([first, first], [second, first, second]):
            with pytest.raises(IntegrityError):
                store.insert_events(events)
        assert store.head().size == 0
        assert store.insert_events([first]) == [1]
        with pytest.raises(IntegrityError):
            store.insert_events([second, first])
        with pytest.raises(IntegrityError):
            store.insert_events([second], tracking=Tracking("__migration__", 1))
        assert store.head().size == 1
        assert store.insert_events([second]) == [2]
        assert list(store.select_events(stream)) == [first, second]
        assert verify_file(self.path, SIGNER.verifier_key).ok


class ApplicationRecorderOn18Test(_OnAServer, upstream.ApplicationRecorderTestCase[PostgresStore]):
    """Versions begin at 1."""


class ProcessRecorderOn18Test(_OnAServer, upstream.ProcessRecorderTestCase):
    """Events and tracking in one transaction."""


class TrackingRecorderOn18Test(_OnAServer, upstream.TrackingRecorderTestCase):
    """The tracking table beside the events."""


class NonInterleavingOn18Test(_OnAServer, upstream.NonInterleavingNotificationIDsBaseCase):
    """Two writers at once."""


class ApplicationRecorderOn15Test(ApplicationRecorderOn18Test):
    version = "postgresql15"


class ProcessRecorderOn15Test(ProcessRecorderOn18Test):
    version = "postgresql15"


class TrackingRecorderOn15Test(TrackingRecorderOn18Test):
    version = "postgresql15"


class NonInterleavingOn15Test(NonInterleavingOn18Test):
    version = "postgresql15"
