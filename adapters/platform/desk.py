"""What both sides of an agency work with: ledger, projections, addressing, and how a decision is recorded."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from broker.ledger.ledger import Change, Ledger, StreamMoved, Unit
from broker.ledger.projections import Follower
from broker.ledger.store import Outcome
from broker.linkage.interface import Failed, LinkageInterface
from broker.linkage.outgoing import MessageQueued
from schemas.items import layouts
from schemas.messages import LetterRequest, NetworkVerdict, ReceivedLetter

S = TypeVar("S")
TakeLetter = Callable[[ReceivedLetter, datetime], Awaitable[list[Change] | Failed]]
"""What a letter that came changes, in one unit with the linkage log's entry."""
TakeVerdict = Callable[[NetworkVerdict], Awaitable[list[Change]]]
"""What the network's verdict on a letter of ours changes, in one unit with the message's settlement."""


class AddressingPort(Protocol):
    """What the intermediate interface may ask of addressing; an individual number is not among it."""

    async def guard(self, integrated_number: str, salt: bytes) -> bytes | None: ...
    async def guards(self, asked: Sequence[tuple[str, bytes]]) -> list[bytes | None]: ...
    async def knows(self, integrated_number: str) -> bool: ...


class Desk:
    """The tools of one agency. Clock and randomness are injected.

    `letters` and `verdicts` say who takes letters of a kind, and the network's verdicts on ours.
    """

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
        self.letters: dict[str, TakeLetter] = {}
        self.verdicts: dict[str, TakeVerdict] = {}
        self._begin()

    def _begin(self) -> None:
        """What a side of the agency has from the start: each adds its own."""

    @property
    def clock(self) -> Callable[[], datetime]:
        return self._clock

    async def letter(self, request: LetterRequest, now: datetime) -> MessageQueued | Failed:
        """A letter, checked, signed and sealed: to be queued in one unit with what it rests on."""
        await self._know(request.receiver)
        return self.linkage.send_letter(request, now, self._random)

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

    def value_index(self, item: str, value: str) -> str:
        """The blind index of an item with its value."""
        return self.ledger.vault.blind("item_value", f"{item}={value}")

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
