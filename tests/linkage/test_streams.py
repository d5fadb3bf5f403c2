"""Messages out and in as event scripts: these events and this command give those events or a refusal."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from broker.linkage import incoming, outgoing
from broker.linkage.incoming import MailboxRead, MessageReceived, MessageRefused, MessageRepeated
from broker.linkage.outgoing import MessageNotSent, MessageQueued, MessageSettled
from schemas.errors import Refusal
from schemas.messages import NetworkVerdict

AT, UNTIL = "2026-11-21T09:30:00.000000+09:00", "2026-11-21T10:30:00.000000+09:00"
QUEUED = MessageQueued(
    "m-1", "inquiry", "990027", "", 1, ("partner", "role", "sign", "seal"), b"c", b"s", b"g", ("code",)
)
NOT_SENT = MessageNotSent("m-1", "inquiry", "990027", "L-104", "role")
SETTLED = MessageSettled("m-1", "p-1", "", AT, UNTIL)
VERDICT = NetworkVerdict("m-1", "p-1", "", AT, UNTIL, ("",))
RECEIVED = MessageReceived("m-1", "inquiry", "990019", "p-1", 7, "digest", ("partner",), b"c", b"s", b"g")


def sent(*happened: Any) -> str:
    """Where an outgoing message stands after these events."""
    state = "none"
    for event in happened:
        state = outgoing.evolve(state, event)
    return state


def came(*happened: Any) -> incoming.State:
    """What is known of an incoming message id after these events."""
    state = incoming.State()
    for event in happened:
        state = incoming.evolve(state, event)
    return state


def test_a_queued_message_is_settled_by_what_the_network_said() -> None:
    assert outgoing.decide_settle(sent(QUEUED), VERDICT) == (SETTLED,)
    refused = replace(VERDICT, code="N-106", valid_until="")
    assert outgoing.decide_settle(sent(QUEUED), refused) == (MessageSettled("m-1", "p-1", "N-106", AT, ""),)


def test_a_second_verdict_for_a_message_changes_nothing() -> None:
    assert outgoing.decide_settle(sent(QUEUED, SETTLED), replace(VERDICT, code="N-107")) == ()


@pytest.mark.parametrize(("happened", "stands"), [((), "none"), ((NOT_SENT,), "not sent")])
def test_a_message_that_never_left_cannot_be_settled(happened: tuple[Any, ...], stands: str) -> None:
    assert outgoing.decide_settle(sent(*happened), VERDICT) == Refusal(
        "L-107", f"outgoing message is {stands}"
    )


def test_the_ways_of_an_outgoing_message_are_those_of_its_table() -> None:
    allowed = {
        ("none", MessageQueued): "queued",
        ("none", MessageNotSent): "not sent",
        ("queued", MessageSettled): "settled",
    }
    states = ("none", "queued", "not sent", "settled")
    for state, event in product(states, (QUEUED, NOT_SENT, SETTLED)):
        if (state, type(event)) in allowed:
            assert outgoing.evolve(state, event) == allowed[state, type(event)]
        else:
            with pytest.raises(KeyError):
                outgoing.evolve(state, event)


def test_the_first_message_of_its_id_is_received() -> None:
    assert incoming.decide_receive(came(), RECEIVED) == (RECEIVED,)


def test_the_same_delivery_again_is_repeated_however_often_it_was() -> None:
    again = replace(RECEIVED, mailbox_position=9)
    repeated = MessageRepeated("m-1", 9)
    assert incoming.decide_receive(came(RECEIVED), again) == (repeated,)
    assert incoming.decide_receive(came(RECEIVED, repeated), again) == (repeated,)


def test_other_content_under_a_received_id_is_a_replay() -> None:
    assert incoming.decide_receive(came(RECEIVED), replace(RECEIVED, digest="other")) == Refusal("L-304")


def test_what_was_refused_never_takes_the_place_of_a_genuine_message() -> None:
    refused = MessageRefused("m-1", "inquiry", "990019", 6, "forged", "verify", "L-302")
    assert came(refused) == came()
    assert incoming.refusal_stream("forged") != incoming.stream("990019", "m-1")
    assert incoming.decide_receive(came(refused), RECEIVED) == (RECEIVED,)
    assert came(MailboxRead(6)) == came()
