"""The SQLite store stands on eventsourcing: what that library asks of its own recorders holds for it too.

Left out is AggregateRecorderTestCase: it is for recorders without notification ids (it wants `insert_events`
to return None, which no ApplicationRecorder does, upstream's own neither); what it asks of inserting and
selecting is asked below by the others, and of conflicts within a call in this file.
"""

from pathlib import Path
from uuid import uuid4

import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent, Tracking
from eventsourcing.tests import persistence as upstream

from broker.ledger.events import leaf_data
from broker.ledger.merkle import leaf_hash
from broker.ledger.sqlite import LedgerDatastore, SQLiteStore
from broker.ledger.verify import verify_file
from tests.ledger.places import SIGNER, sign


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

    def check(self, store: SQLiteStore) -> None:
        events = store.events(0, 1_000_000)
        tiles = b"".join(store.tile(0, index) for index in range(-(-len(events) // 256)))
        assert tiles == b"".join(leaf_hash(leaf_data(event)) for event in events)
        store.close()


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
