"""Event types: frozen dataclasses with a wire name, and the codec between them and stored bytes.

A stored event is a clear part, from which alone every projection is built, and a sealed part with what
belongs to a person. The wire name and version are the topic; the module path is not (moving a class must
not change history). The registry is closed: a topic that is not in it is refused, never imported.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Any, Final, TypeVar

import msgpack
from eventsourcing.persistence import Notification, StoredEvent

from broker.ledger.vault import GENERATION, Erased, KeyDestroyed, Opening, Vault

Fields = dict[str, Any]
Upgrade = Callable[[Fields], Fields]
T = TypeVar("T")


class UnreadableEvent(Exception):
    """Stored bytes that this version of the software cannot read as an event."""


class _Sealed:
    """What a sealed field holds where nobody opened it."""

    def __repr__(self) -> str:
        return "SEALED"


SEALED: Final[Any] = _Sealed()


@dataclass(frozen=True)
class Wire:
    """How an event type is stored.

    `retention` names the class of the retention schedule, which also names the key that seals the event:
    one key per class and month, or, with `per_person`, one key per value of the field `person`.
    `upgrades` turns the fields of version n into those of version n + 1.
    """

    name: str
    version: int
    retention: str
    per_person: bool
    upgrades: Mapping[int, Upgrade]

    @property
    def topic(self) -> str:
        return f"{self.name}/{self.version}"


def event(
    name: str,
    version: int = 1,
    *,
    retention: str,
    per_person: bool = False,
    upgrades: Mapping[int, Upgrade] | None = None,
) -> Callable[[type[T]], type[T]]:
    """Declare a frozen dataclass to be an event type."""

    def declare(cls: type[T]) -> type[T]:
        cls.wire = Wire(name, version, retention, per_person, upgrades or {})  # type: ignore[attr-defined] # set here for Registry alone
        return cls

    return declare


def personal() -> Any:
    """A field that is sealed: it belongs to a person. Never shown in a repr."""
    return field(metadata={"sealed": True}, repr=False)


@dataclass(frozen=True)
class Recorded:
    """An event with its place: position in the ledger (from 1), stream, version in the stream (from 1).

    `erased` tells that the key of its sealed fields was destroyed: each of them then holds the same Erased,
    and all else of the event is there as ever.
    """

    position: int
    stream: str
    version: int
    message_id: str
    at: str
    event: Any
    erased: Erased | None = None


@dataclass(frozen=True)
@event("key.destruction_asked", retention="key")
class DestructionAsked:
    """A first person asked for the destruction of a key by a rule; `request` is what the second confirms."""

    key: str
    request: str
    rule: str
    by: str


@dataclass(frozen=True)
@event("key.destruction_confirmed", retention="key")
class DestructionConfirmed:
    """A second person confirmed a request: from here on it is carried out, also after a crash."""

    key: str
    request: str
    by: str


@dataclass(frozen=True)
@event("key.destroyed", retention="key")
class Destroyed:
    """The key is gone from the vault since `destroyed_at` (ISO 8601)."""

    key: str
    request: str
    rule: str
    destroyed_at: str


KEY_EVENTS = (DestructionAsked, DestructionConfirmed, Destroyed)
"""What every ledger records of its own keys. Nothing in these is sealed."""


class Registry:
    """The closed set of event types of one ledger; those about its own keys are always among them."""

    def __init__(self, types: Iterable[type[Any]]) -> None:
        self._by_name: dict[str, tuple[type[Any], Wire, frozenset[str]]] = {}
        for cls in (*types, *KEY_EVENTS):
            wire: Wire = cls.wire  # type: ignore[attr-defined] # set by the decorator
            if wire.name in self._by_name:
                raise ValueError(f"two event types are called {wire.name}")
            sealed = frozenset(f.name for f in fields(cls) if f.metadata.get("sealed"))
            self._by_name[wire.name] = (cls, wire, sealed)

    def key_id(self, domain_event: Any, at: str) -> str | None:
        """The name of the key that seals this event at this time; None where nothing is sealed.

        Raises ValueError for a person whose key would look like another one's next generation.
        """
        _, wire, sealed = self._by_name[domain_event.wire.name]
        if not sealed:
            return None
        if not wire.per_person:
            return f"{wire.retention}/{at[:7]}"
        if GENERATION in domain_event.person:
            raise ValueError(f"{wire.name}: a person's mark holds {GENERATION}")
        return f"person/{domain_event.person}"

    def encode(
        self, stream: str, version: int, domain_event: Any, message_id: str, at: str, vault: Vault
    ) -> StoredEvent:
        """Seal and pack, by the key that `vault.ensure` made ready for `key_id`.

        Raises KeyError for an event type that is not in the registry.
        """
        _, wire, sealed = self._by_name[domain_event.wire.name]
        values = vars(domain_event)
        clear = {name: value for name, value in values.items() if name not in sealed}
        key_id, box = None, None
        if name := self.key_id(domain_event, at):
            key_id = vault.current(name)
            secret = msgpack.packb({name: values[name] for name in sealed})
            box = vault.seal(key_id, secret, _place(stream, version, wire.topic))
        state = msgpack.packb([message_id, at, clear, key_id, box])
        return StoredEvent(originator_id=stream, originator_version=version, topic=wire.topic, state=state)

    def decode(self, stored: Notification, vault: Vault | Opening | None) -> Recorded:
        """Read a stored event; with a vault its sealed part is opened, without one it stays SEALED.

        What was sealed by a destroyed key is Erased. Raises UnreadableEvent, and when opening
        vault.KeyMissing or vault.SealBroken.
        """
        name, _, number = stored.topic.rpartition("/")
        known = self._by_name.get(name)
        if known is None:
            raise UnreadableEvent(f"position {stored.id}: unknown event type {stored.topic}")
        cls, wire, sealed = known
        try:
            message_id, at, clear, key_id, box = msgpack.unpackb(stored.state, use_list=False)
            values = dict(clear)
            if key_id is not None and not (isinstance(key_id, str) and isinstance(box, bytes)):
                raise TypeError("not a sealed part")
        except (ValueError, TypeError) as error:
            raise UnreadableEvent(f"position {stored.id}: not the bytes of an event") from error
        stream, version = str(stored.originator_id), stored.originator_version
        erased = None
        if key_id is not None:
            if vault is None:
                values |= dict.fromkeys(sealed, SEALED)
            else:
                try:
                    secret = vault.open(key_id, box, _place(stream, version, stored.topic))
                    values |= msgpack.unpackb(secret, use_list=False)
                except KeyDestroyed as destroyed:
                    erased = destroyed.erased
                    values |= dict.fromkeys(sealed, erased)
        try:
            if not 1 <= int(number) <= wire.version:
                raise ValueError(f"version {number} is not known")
            for step in range(int(number), wire.version):
                values = wire.upgrades[step](values)
            domain_event = cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UnreadableEvent(
                f"position {stored.id}: {stored.topic} does not fit {cls.__name__}"
            ) from error
        return Recorded(stored.id, stream, version, message_id, at, domain_event, erased)


def _place(stream: str, version: int, topic: str) -> bytes:
    """What a seal is bound to: moved to another place in the ledger, it does not open."""
    return f"{stream}\x1f{version}\x1f{topic}".encode()


def message_id_of(state: bytes) -> str | None:
    """The message id in the bytes of an event, or None where they are not those of an event."""
    return _text_at(0, state)


def key_of(state: bytes) -> str | None:
    """The id of the key that sealed an event, by its bytes; None where nothing of it is sealed."""
    return _text_at(3, state)


def _text_at(index: int, state: bytes) -> str | None:
    try:
        message_id, at, clear, key_id, box = msgpack.unpackb(state, use_list=False)
    except (ValueError, TypeError):
        return None
    found = (message_id, at, clear, key_id, box)[index]
    return found if isinstance(found, str) else None


def leaf_data(stored: StoredEvent) -> bytes:
    """The entry of the transparency log for an event: its place and the digest of its bytes.

    With a digest in the place of the bytes every entry fits the format's 65,535 bytes, and the log can be
    published without a single sealed byte.
    """
    packed: bytes = msgpack.packb(
        [
            str(stored.originator_id),
            stored.originator_version,
            stored.topic,
            sha256(stored.state).digest(),
        ]
    )
    return packed
