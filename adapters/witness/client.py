"""How a log has its checkpoints cosigned, and how they are sealed.

Every commit is covered by a checkpoint with one quick signature. From time to time the latest one is sealed:
the log adds a signature that a quantum computer does not break, and witnesses add theirs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import trio

from adapters.http import Client, Response, Unreachable
from broker.ledger.merkle import ReadTile
from broker.ledger.notes import (
    Checkpoint,
    Kind,
    NoteInvalid,
    NoteSigner,
    NoteVerifier,
    decimal,
    open_note,
    parts,
    signer_of,
    with_signatures,
)
from broker.ledger.store import Store
from broker.ledger.witness import submission
from schemas.errors import Refusal, Refused

_ATTEMPTS = 3  # another process of the same log may be asking, too


class WitnessClient:
    """One witness, as the log knows it: its line, the path of its door, its verifier keys.

    All keys have one name, which is the witness's. Raises NoteInvalid for a key that is none of a witness.
    """

    def __init__(self, client: Client, prefix: str, verifier_keys: Sequence[str]) -> None:
        self._client = client
        self._path = f"{prefix}/add-checkpoint"
        self._verifiers = [NoteVerifier(key) for key in verifier_keys]
        if any(verifier.kind is Kind.ED25519 for verifier in self._verifiers):
            raise NoteInvalid("a key for notes is not one for cosignatures")
        self.name = self._verifiers[0].name
        self._seen = 0  # the size that the witness signed last, as far as we know

    def has_signed(self, lines: Sequence[str]) -> bool:
        """Whether these signature lines hold one of this witness."""
        ours = {(verifier.name, verifier.key_id) for verifier in self._verifiers}
        return any(signer_of(line)[:2] in ours for line in lines)

    async def cosign(self, read: ReadTile, note: str) -> list[str]:
        """The witness's signature lines for a checkpoint, each of them verified.

        Raises Unreachable, or Refused: S-121 for an answer that is no cosignature, S-122 where the witness
        says that the log does not go on from what it saw.
        """
        text, _ = parts(note)
        size = Checkpoint.read(text).size
        old = min(self._seen, size)
        for _ in range(_ATTEMPTS):
            asked = await trio.to_thread.run_sync(submission, read, old, note)
            response = await self._client.request("POST", self._path, asked.text().encode())
            if response.status == 200:
                lines = self._verified(text, response)
                self._seen = size
                return lines
            if response.status == 422:
                raise Refused(Refusal("S-122", f"{self.name}: {old} -> {size}"))
            if response.status != 409:
                raise Refused(Refusal("S-121", f"{self.name}: HTTP {response.status}"))
            old = self._size(response)
            if old > size:
                raise Refused(Refusal("S-122", f"{self.name}: {old} > {size}"))
        raise Refused(Refusal("S-121", f"{self.name}: HTTP 409"))

    def _size(self, response: Response) -> int:
        try:
            return decimal(response.body.decode().removesuffix("\n"))
        except ValueError as error:
            raise Refused(Refusal("S-121", f"{self.name}: 409 without a size")) from error

    def _verified(self, text: str, response: Response) -> list[str]:
        try:
            note = f"{text}\n{response.body.decode()}"
            opened, signed = open_note(note, self._verifiers)
            lines = [line for line in parts(note)[1] if self.has_signed([line])]
        except (NoteInvalid, UnicodeDecodeError) as error:
            raise Refused(Refusal("S-121", f"{self.name}: {type(error).__name__}")) from error
        if opened != text or not all(each.time for each in signed):
            raise Refused(Refusal("S-121", f"{self.name}: no cosignature with a time"))
        return lines


@dataclass(frozen=True)
class Sealed:
    """A checkpoint that was sealed: its size, the lines added now, and why others did not come."""

    size: int
    lines: tuple[str, ...]
    missing: tuple[Refusal, ...]


async def seal(
    store: Store,
    signers: Sequence[NoteSigner],
    witnesses: Sequence[WitnessClient],
    clock: Callable[[], datetime],
) -> Sealed:
    """Have the latest checkpoint signed by the log's other keys and by the witnesses, as far as it is not.

    A witness that is away, or refuses, stops nobody else; it is asked again at the next sealing.
    """
    head = await trio.to_thread.run_sync(store.head)
    if not head.size:
        return Sealed(0, (), ())
    text, own = parts(head.note)
    kept = await trio.to_thread.run_sync(store.cosignatures, head.size)
    have = {signer_of(line)[:2] for line in (*own, *kept)}
    time = int(clock().timestamp())
    lines = [signer.line(text, time) for signer in signers if (signer.name, signer.key_id) not in have]
    note = with_signatures(head.note, [*kept, *lines])
    missing: list[Refusal] = []

    async def ask(witness: WitnessClient) -> None:
        try:
            lines.extend(await witness.cosign(store.tile, note))
        except Unreachable as error:
            missing.append(Refusal("S-121", f"{witness.name}: {error}"))
        except Refused as error:
            missing.append(error.refusal)

    async with trio.open_nursery() as nursery:
        for witness in witnesses:
            if not witness.has_signed(kept):
                nursery.start_soon(ask, witness)
    if lines:
        await trio.to_thread.run_sync(store.cosign, head.size, lines)
    return Sealed(head.size, tuple(lines), tuple(missing))
