"""What both sides of an agency work with: ledger, projections, addressing, and how a decision is recorded."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar

from broker.ledger.ledger import Change, Ledger, StreamMoved, Unit
from broker.ledger.projections import Follower
from broker.ledger.store import Outcome
from broker.linkage.interface import LinkageInterface
from schemas.items import layouts

S = TypeVar("S")
BUSINESS_SALT = 32


class AddressingPort(Protocol):
    """What the intermediate interface may ask of addressing; an individual number is not among it."""

    async def guard(self, integrated_number: str, salt: bytes) -> bytes | None: ...
    async def knows(self, integrated_number: str) -> bool: ...


class Desk:
    """The tools of one agency. Clock and randomness are injected."""

    def __init__(
        self,
        ledger: Ledger,
        follower: Follower,
        linkage: LinkageInterface,
        addressing: AddressingPort,
        clock: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.ledger = ledger
        self.follower = follower
        self.linkage = linkage
        self.addressing = addressing
        self._clock = clock
        self._random = random_bytes
        self._refresh: Callable[[], Awaitable[None]] | None = None

    def refresh_by(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """How to fetch the directory anew when a partner is not in it."""
        self._refresh = refresh

    async def _know(self, code: str) -> None:
        directory = self.linkage.directory
        if self._refresh is not None and (directory is None or code not in directory.partners):
            await self._refresh()

    def person(self, integrated_number: str) -> str:
        """The blind index of a person in this agency's ledger."""
        return self.ledger.vault.blind("person", integrated_number)

    async def _change(
        self,
        key: str,
        start: S,
        evolve: Callable[[S, Any], S],
        decide: Callable[[S], tuple[Any, ...]],
    ) -> None:
        """Load a stream, decide, append; again if somebody was faster."""
        while True:
            recorded = await self.ledger.stream(key)
            state = start
            for happened in recorded:
                state = evolve(state, happened.event)
            decided = decide(state)
            if not decided or await self._try(
                Unit(
                    f"{key}#{len(recorded) + 1}/{self._random(8).hex()}",
                    (Change(key, len(recorded), decided),),
                )
            ):
                return

    async def _try(self, unit: Unit) -> Outcome | None:
        """None when a stream moved meanwhile: look again and decide again."""
        try:
            return await self.ledger.append(unit)
        except StreamMoved:
            return None


def layouts_of(information: str) -> frozenset[str]:
    """Keys of the layouts that carry a kind of information of the law."""
    return frozenset(known.key for known in layouts() if known.information == information)
