"""The contract of the ledger, the same for every store."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from eventsourcing.persistence import IntegrityError, Notification

from broker.ledger.events import leaf_data
from broker.ledger.merkle import (
    ProofInvalid,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from broker.ledger.notes import NoteVerifier
from broker.ledger.postgres import PostgresStore
from broker.ledger.sqlite import SQLiteStore
from broker.ledger.store import Commit, Conflict, Head, MemoryStore, Outcome, Store, next_commit
from tests.ledger.places import AT, SIGNER, Place, plain_root, sign, stored, unit


def everything(store: Store) -> list[Notification]:
    return store.events(0, 1_000_000)


def states(events: list[Notification]) -> list[bytes]:
    return [event.state for event in events]


def test_an_empty_store(place: Place) -> None:
    assert place.store.head() == Head()
    assert everything(place.store) == place.store.stream("a") == place.store.at([1]) == []
    assert list(place.store.checkpoints()) == []
    assert place.store.outcomes(["m1"]) == {}


def test_what_is_appended_can_be_read(place: Place) -> None:
    assert stored(place.store, unit("m1", ("a", 0, 2), ("b", 0, 1))) == [Outcome(1, 3)]
    for store in place.before_and_after():
        assert [
            (e.id, e.originator_id, e.originator_version, e.topic, e.state) for e in everything(store)
        ] == [
            (1, "a", 1, "plain/1", b"m1 a 1"),
            (2, "a", 2, "plain/1", b"m1 a 2"),
            (3, "b", 1, "plain/1", b"m1 b 1"),
        ]
        assert states(store.stream("a")) == [b"m1 a 1", b"m1 a 2"]
        assert states(store.stream("a", after=1)) == [b"m1 a 2"]
        assert store.stream("nowhere") == []
        several = store.streams(["nowhere", "b", "a", "b"])
        assert sorted(states(several)) == sorted(states([*store.stream("a"), *store.stream("b")]))
        assert [e for e in several if e.originator_id == "a"] == store.stream("a")
        assert store.streams([]) == []
        assert store.outcomes(["m1", "m2"]) == {"m1": Outcome(1, 3)}
        assert store.head().size == 3


def test_positions_are_dense_and_in_the_order_of_commits(place: Place) -> None:
    outcomes = []
    for batch in range(20):
        store = place.reopen() if batch == 10 else place.store
        outcomes += stored(store, *(unit(f"m{batch}-{i}", (f"s{batch}-{i}", 0, i + 1)) for i in range(3)))
    assert [o.first for o in outcomes] == [1] + [o.last + 1 for o in outcomes[:-1]]
    events = everything(place.store)
    assert [event.id for event in events] == list(range(1, 121))
    assert [event.state.split()[0].decode() for event in events] == [
        f"m{batch}-{i}" for batch in range(20) for i in range(3) for _ in range(i + 1)
    ]


def test_versions_count_up_in_each_stream(place: Place) -> None:
    stored(place.store, unit("m1", ("a", 0, 2)), unit("m2", ("b", 0, 1)), unit("m3", ("a", 2, 1)))
    stored(place.reopen(), unit("m4", ("b", 1, 2), ("a", 3, 1)))
    assert [event.originator_version for event in place.store.stream("a")] == [1, 2, 3, 4]
    assert [event.originator_version for event in place.store.stream("b")] == [1, 2, 3]


def test_a_conflict_names_the_stream_and_leaves_nothing(place: Place) -> None:
    stored(place.store, unit("m1", ("a", 0, 2)))
    before = place.store.head()
    assert place.store.append([unit("m2", ("new", 0, 1), ("a", 1, 1))], AT) == [Conflict("a", 1, 2)]
    assert place.store.append([unit("m3", ("b", 4, 1))], AT) == [Conflict("b", 4, 0)]
    for store in place.before_and_after():
        assert store.head() == before
        assert len(everything(store)) == 2
        assert store.stream("new") == []
        assert store.outcomes(["m2", "m3"]) == {}
    # A message id whose unit met a conflict is free: decided again, the unit is stored.
    assert stored(place.store, unit("m2", ("new", 0, 1), ("a", 2, 1))) == [Outcome(3, 4)]


def test_the_other_units_of_a_batch_are_committed_beside_a_conflict(place: Place) -> None:
    results = place.store.append(
        [unit("m1", ("a", 0, 1)), unit("m2", ("a", 0, 1), ("b", 0, 1)), unit("m3", ("b", 0, 1), ("a", 1, 1))],
        AT,
    )
    assert results == [Outcome(1, 1), Conflict("a", 0, 1), Outcome(2, 3)]
    assert states(everything(place.reopen())) == [b"m1 a 1", b"m3 b 1", b"m3 a 1"]


def test_a_stream_that_is_only_required_must_not_have_moved(place: Place) -> None:
    stored(place.store, unit("m1", ("a", 0, 1)))
    assert place.store.append([unit("m2", ("b", 0, 1), ("a", 0, 0))], AT) == [Conflict("a", 0, 1)]
    assert place.store.append([unit("m3", ("b", 0, 1), ("never", 1, 0))], AT) == [Conflict("never", 1, 0)]
    assert stored(place.store, unit("m4", ("b", 0, 1), ("a", 1, 0), ("never", 0, 0))) == [Outcome(2, 2)]
    # Also when it moves within the same batch, before the unit that requires it.
    assert place.store.append([unit("m5", ("a", 1, 1)), unit("m6", ("b", 1, 1), ("a", 1, 0))], AT) == [
        Outcome(3, 3),
        Conflict("a", 1, 2),
    ]


def test_a_unit_that_only_requires_stores_nothing(place: Place) -> None:
    results = stored(place.store, unit("m1", ("a", 0, 1)), unit("m2", ("b", 0, 0)), unit("m3", ("c", 0, 1)))
    assert results == [Outcome(1, 1), Outcome(2, 1), Outcome(2, 2)]
    assert place.store.outcomes(["m1", "m2", "m3"]) == {"m1": Outcome(1, 1), "m3": Outcome(2, 2)}
    assert stored(place.store, unit("m4", ("b", 0, 0))) == [Outcome(3, 2)]
    assert place.store.head().size == 2


def test_the_same_message_id_gets_the_first_outcome(place: Place) -> None:
    stored(place.store, unit("m0", ("z", 0, 3)), unit("m1", ("a", 0, 2)))
    first = Outcome(4, 5, repeated=True)
    for store in place.before_and_after():
        assert stored(store, unit("m1", ("a", 0, 2))) == [first]
        # What it asks for now is not looked at: neither its streams nor its events.
        assert stored(store, unit("m1", ("other", 7, 9))) == [first]
        assert store.head().size == 5


def test_the_same_message_id_twice_in_one_batch(place: Place) -> None:
    batch = [unit("m1", ("a", 0, 2)), unit("m2", ("b", 0, 1)), unit("m1", ("a", 0, 2))]
    assert stored(place.store, *batch) == [Outcome(1, 2), Outcome(3, 3), Outcome(1, 2, repeated=True)]
    assert place.reopen().head().size == 3


def test_after_a_conflict_the_same_message_id_may_still_win_in_its_batch(place: Place) -> None:
    batch = [unit("m1", ("a", 5, 1)), unit("m1", ("a", 0, 1)), unit("m1", ("a", 0, 1))]
    assert place.store.append(batch, AT) == [Conflict("a", 5, 0), Outcome(1, 1), Outcome(1, 1, repeated=True)]


def test_a_batch_of_many_streams_and_message_ids(place: Place) -> None:
    """More than a database binds to one statement."""
    units = [unit(f"m{i}", (f"s{i}", 0, 1)) for i in range(1_200)]
    stored(place.store, *units)
    assert [o.repeated for o in stored(place.reopen(), *units)] == [True] * 1_200
    moved = place.store.append([unit(f"n{i}", (f"s{i}", 0, 1)) for i in range(1_200)], AT)
    assert moved == [Conflict(f"s{i}", 0, 1) for i in range(1_200)]
    positions = list(range(1_200, 0, -1))
    assert [event.id for event in place.store.at([*positions, 500])] == positions[::-1]


def test_reading_by_position(place: Place) -> None:
    stored(place.store, unit("m1", ("a", 0, 9)))
    store = place.reopen()
    assert [event.id for event in store.events(0, 4)] == [1, 2, 3, 4]
    assert [event.id for event in store.events(4, 4)] == [5, 6, 7, 8]
    assert [event.id for event in store.events(8, 4)] == [9]
    assert store.events(9, 4) == store.events(3, 0) == []
    # Each once, in the order of the ledger, and nothing for a position that is not there.
    assert [event.id for event in store.at([7, 2, 7, 10, 0])] == [2, 7]
    assert store.at([]) == []


def test_a_store_that_fails_takes_nothing_of_a_batch(place: Place) -> None:
    stored(place.store, unit("m1", ("a", 0, 1)))
    before = place.store.head()

    def refuse(size: int, root: bytes) -> str:
        raise ArithmeticError("no signature today")

    assert isinstance(place.store, MemoryStore | SQLiteStore | PostgresStore)
    place.store._sign, signing = refuse, place.store._sign
    with pytest.raises(ArithmeticError):
        place.store.append([unit("m2", ("a", 1, 1)), unit("m3", ("b", 0, 1))], AT)
    place.store._sign = signing
    assert place.store.head() == before
    assert states(everything(place.store)) == [b"m1 a 1"]
    assert place.store.stream("b") == []
    assert place.store.outcomes(["m2", "m3"]) == {}
    assert stored(place.store, unit("m2", ("a", 1, 1))) == [Outcome(2, 2)]


def test_every_checkpoint_signs_the_root_over_all_events_up_to_it(place: Place) -> None:
    verifier = NoteVerifier(SIGNER.verifier_key)
    sizes: list[int] = []
    for number, count in enumerate((1, 1, 2, 5, 30, 216, 1, 1, 40, 300)):
        store = place.reopen() if number % 3 == 2 else place.store
        stored(store, unit(f"m{number}", (f"s{number}", 0, count)))
        sizes.append(sum(sizes[-1:]) + count)
    leaves = [leaf_hash(leaf_data(event)) for event in everything(place.store)]
    heads = list(place.store.checkpoints())
    assert [head.size for head in heads] == sizes
    assert heads[-1] == place.store.head()
    assert list(place.store.checkpoints(after=sizes[6])) == heads[7:]
    for head in heads:
        checkpoint = verifier.checkpoint(head.note)
        assert (checkpoint.origin, checkpoint.size) == ("test/ledger", head.size)
        assert checkpoint.root == plain_root(leaves[: head.size]) == root_of(head.frontier)


def test_the_leaf_covers_all_that_is_stored_of_an_event() -> None:
    """Otherwise something could be changed under a valid log."""
    event = unit("m", ("a", 0, 1)).events[0]
    parts: dict[str, Any] = {
        "originator_id": "b",
        "originator_version": 2,
        "topic": "plain/2",
        "state": b"other",
    }
    others = [replace(event, **{part: value}) for part, value in parts.items()]
    assert len({leaf_data(each) for each in (event, *others)}) == 5


def test_the_tiles_prove_inclusion_and_consistency(place: Place) -> None:
    for number in range(7):
        stored(place.store, unit(f"m{number}", (f"s{number}", 0, 43)))
    store = place.reopen()
    leaves = [leaf_hash(leaf_data(event)) for event in everything(store)]
    roots = {head.size: root_of(head.frontier) for head in store.checkpoints()}
    tile = cache(store.tile)
    for size, root in roots.items():
        for index in range(size):
            verify_inclusion(leaves[index], index, size, inclusion_proof(tile, index, size), root)
        for old in roots:
            if old <= size:
                verify_consistency(old, size, consistency_proof(tile, old, size), roots[old], root)
    proof = inclusion_proof(store.tile, 3, 301)
    with pytest.raises(ProofInvalid):
        verify_inclusion(leaves[4], 3, 301, proof, roots[301])


def test_the_times_of_commits_never_go_back(place: Place) -> None:
    """Whatever a clock says: what was shown as of a time must stay what was there at that time."""
    for number, at in enumerate(("2026-11-21T03", "2026-11-21T05", "2026-11-21T04", "2026-11-21T06"), 1):
        place.store.append([unit(f"m{number}", ("a", number - 1, 1))], at)
    store = place.reopen()
    assert [head.at[11:] for head in store.checkpoints()] == ["03", "05", "05", "06"]
    for at, position in (("02", 0), ("03", 1), ("04", 1), ("05", 3), ("055", 3), ("06", 4), ("07", 4)):
        assert store.position_at(f"2026-11-21T{at}") == position, at


def test_checkpoints_come_in_pages(place: Place) -> None:
    for number in range(7):
        stored(place.store, unit(f"m{number}", ("a", number * 2, 2)))
    assert [head.size for head in place.store.checkpoints(limit=3)] == [2, 4, 6]
    assert [head.size for head in place.store.checkpoints(6, 3)] == [8, 10, 12]
    assert [head.size for head in place.store.checkpoints(13, 3)] == [14]


def test_cosignatures_are_kept_once_each_and_beside_their_checkpoint(place: Place) -> None:
    stored(place.store, unit("m1", ("a", 0, 1)))
    place.store.cosign(1, ["— b line", "— a line"])
    place.store.cosign(1, ["— a line", "— c line"])
    store = place.reopen()
    assert sorted(store.cosignatures(1)) == ["— a line", "— b line", "— c line"]
    assert store.cosignatures(2) == []
    stored(store, unit("m2", ("a", 1, 4)))
    store.cosign(5, ["— ml-dsa " + "x" * 3_300])
    assert [store.cosigned(size) for size in (0, 1, 2, 5, 6)] == [1, 1, 5, 5, 0]


def test_a_ledger_put_into_another_is_the_same(place: Place) -> None:
    source = MemoryStore(sign)
    commits: list[Commit] = []
    for number, count in enumerate((1, 255, 3, 300)):
        head = source.head()
        batch = [unit(f"m{number}-{i}", (f"s{number}-{i}", 0, 1)) for i in range(count)]
        outcomes = {u.message_id: o for u, o in zip(batch, stored(source, *batch), strict=True)}
        events = [event for u in batch for event in u.events]
        commits.append(next_commit(head, events, outcomes, AT, sign))
    place.store.put(commits[:2])
    store = place.reopen()
    store.put(commits[2:])
    assert everything(store) == everything(source)
    assert store.checkpoints() == source.checkpoints()
    assert [store.tile(*tile) for tile in ((0, 0), (0, 2), (1, 0))] == [
        source.tile(*tile) for tile in ((0, 0), (0, 2), (1, 0))
    ]
    assert store.outcomes(["m3-7"]) == source.outcomes(["m3-7"])
    assert stored(store, unit("m3-7", ("s3-7", 0, 1))) == [Outcome(267, 267, repeated=True)]


@pytest.mark.parametrize("what", ["again", "gap", "leaf", "node", "frontier", "time", "event"])
def test_what_does_not_follow_is_not_put(place: Place, what: str) -> None:
    source = MemoryStore(sign)
    commits = []
    for number in range(3):
        head = source.head()
        (outcome,) = stored(source, unit(f"m{number}", ("a", number * 300, 300)))
        events = unit(f"m{number}", ("a", number * 300, 300)).events
        commits.append(next_commit(head, events, {f"m{number}": outcome}, AT, sign))
    place.store.put(commits[:1])
    good = commits[1]
    wrong = {
        "again": commits[0],
        "gap": commits[2],
        "leaf": replace(good, leaves=[bytes(32), *good.leaves[1:]]),
        "node": replace(good, nodes={}),
        "frontier": replace(good, head=replace(good.head, frontier=(bytes(32),))),
        "time": replace(good, head=replace(good.head, at="2025-01-01T00:00:00.000000+00:00")),
        "event": replace(good, events=[replace(good.events[0], state=b"other"), *good.events[1:]]),
    }[what]
    with pytest.raises(IntegrityError):
        place.store.put([wrong])
    assert place.reopen().head() == commits[0].head
    place.store.put(commits[1:])
    assert place.store.head() == commits[2].head
