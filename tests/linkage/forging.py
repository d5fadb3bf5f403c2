"""Messages that no honest party makes, and notes as only the network can sign them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgpack

from broker.linkage.crypto import Signer, parties, seal
from broker.linkage.interface import Failed, LinkageInterface, tree_head
from broker.linkage.outgoing import MessageQueued
from schemas.messages import (
    AnswerControl,
    Delivery,
    DeliveryNote,
    Envelope,
    InquiryControl,
    Permit,
    ReceivedAnswer,
    ReceivedInquiry,
    decode,
    decode_business,
    encode,
    encode_business,
    signed_bytes,
)
from tests.house import House, Town

INQUIRY, ANSWER = "inquiry", "answer"


def flipped(data: bytes, position: int, bit: int) -> bytes:
    """The same bytes with one bit turned over."""
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def with_envelope(delivery: Delivery, **changes: bytes) -> Delivery:
    return replace(delivery, envelope=replace(delivery.envelope, **changes))


@dataclass(frozen=True)
class Scene:
    """A genuine message on its way: of which kind, from whom, and to whom."""

    house: House
    kind: str
    genuine: Delivery

    @property
    def sender(self) -> Town:
        return self.house.asking if self.kind == INQUIRY else self.house.answering

    @property
    def receiver(self) -> Town:
        return self.house.answering if self.kind == INQUIRY else self.house.asking

    def check(self, delivery: Delivery, linkage: LinkageInterface | None = None) -> Any:
        """What the linkage interface of the receiver makes of a delivery, without recording it."""
        linkage = linkage or self.receiver.linkage
        if self.kind == INQUIRY:
            return linkage.receive_inquiry(delivery, self.house.clock())
        return linkage.receive_answer(delivery, self.house.clock())

    def opened(self) -> bytes:
        """The business part of the genuine message."""
        info = parties(self.kind, self.sender.agency.code, self.receiver.agency.code)
        return self.receiver.linkage.sealing_key.open(self.genuine.envelope.sealed, info)

    def subjects(self) -> Sequence[Any]:
        """What the records of the genuine message say, salt included."""
        return [msgpack.unpackb(record) for record in decode_business(self.opened())]

    def made(
        self,
        *,
        key: Signer | None = None,
        content: Any = None,
        business: bytes | None = None,
        public: bytes | None = None,
        info: bytes | None = None,
        **changes: Any,
    ) -> Delivery:
        """The genuine message made anew with other fields in its control part, another key, other content.

        `key` is whose key signs (the sender's by itself), `content` what the records inside say, `public` and
        `info` for whom and under which names it is sealed. The head of the tree fits the records.
        """
        fields: Any = InquiryControl if self.kind == INQUIRY else AnswerControl
        content = self.subjects() if content is None else content
        records = [msgpack.packb({"salt": bytes(16)} | each) for each in content]
        changes = {"root": tree_head(records)} | changes
        control = encode(replace(decode(fields, self.genuine.envelope.control), **changes))
        business = encode_business(records) if business is None else business
        signature = (key or self.sender.linkage.signer).sign(signed_bytes(control))
        public = public or self.receiver.linkage.sealing_key.public
        info = info or parties(self.kind, self.sender.agency.code, self.receiver.agency.code)
        sealed = seal(business, public, info)
        return replace(self.genuine, envelope=Envelope(control, sealed, signature))

    def noted(self, delivery: Delivery, **changes: Any) -> Delivery:
        """A delivery under another note of the network, with its genuine signature."""
        fields: Any = Permit if self.kind == INQUIRY else DeliveryNote
        note = encode(replace(decode(fields, delivery.note), **changes))
        return self.signed_note(delivery, note)

    def signed_note(self, delivery: Delivery, note: bytes) -> Delivery:
        return replace(delivery, note=note, note_signature=self.house.keys.signer("network").sign(note))


async def scene_of(house: House, kind: str, *people: int) -> Scene:
    """An exchange up to the message of this kind, which lies in its mailbox and was not received yet."""
    genuine = await (house.ask(*people) if kind == INQUIRY else house.answer(*people))
    return Scene(house, kind, genuine)


def outcome(checked: ReceivedInquiry | ReceivedAnswer | MessageQueued | Failed) -> tuple[str, str]:
    """Step and code of a check that failed; ("", "") where all passed."""
    return (checked.step, checked.refusal.code) if isinstance(checked, Failed) else ("", "")
