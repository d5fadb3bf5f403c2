"""An agency's side of the network connection: everything is opened from the office outward."""

from collections.abc import Sequence
from typing import Any

from adapters.http import Client, Unreachable
from broker.linkage.outgoing import MessageQueued
from schemas.accounts import Account, Name, account_from
from schemas.errors import Refusal, Refused
from schemas.messages import (
    Delivery,
    Envelope,
    Malformed,
    NetworkVerdict,
    build,
    delivery_from,
    pack,
    unpack,
)

POLL = 20.0


class NetworkClient:
    """Speaks to the network over one client for short requests and one for long polls.

    Raises Unreachable where the network gives no whole, sensible answer, and Refused with an N code where it
    does not admit this agency.
    """

    def __init__(self, short: Client, long: Client) -> None:
        self._short = short
        self._long = long

    async def register(self, certificate: bytes, sealing_key: bytes) -> None:
        await self._ask(
            "POST", "/v1/registration", pack({"certificate": certificate, "sealing_key": sealing_key})
        )

    async def directory(self) -> bytes:
        """The directory as signed; read it with broker.linkage.partners.read_directory."""
        return await self._ask("GET", "/v1/directory")

    async def submit(self, messages: Sequence[MessageQueued]) -> list[NetworkVerdict]:
        """Send messages in one request; a verdict for each, in their order. Sending again is harmless."""
        batch = [
            {
                "kind": message.kind,
                "envelope": Envelope(message.control, message.sealed, message.signature),
                "link_codes": message.link_codes,
            }
            for message in messages
        ]
        try:
            values = unpack(await self._ask("POST", "/v1/messages", pack([*batch])))
            verdicts = [build(NetworkVerdict, value) for value in values]
        except (Malformed, TypeError) as error:
            raise Unreachable("the network's verdicts cannot be read") from error
        if len(verdicts) != len(messages):
            raise Unreachable("the network gave another number of verdicts than messages")
        return verdicts

    async def mailbox(self, after: int) -> list[Delivery]:
        """Wait for what lies in the mailbox behind a position; empty when nothing came in time."""
        data = await self._ask("GET", f"/v1/mailbox?after={after}&wait={POLL:g}", long=True)
        try:
            return [delivery_from(values) for values in unpack(data)]
        except (Malformed, TypeError) as error:
            raise Unreachable("the mailbox cannot be read") from error

    async def codes(self) -> list[tuple[str, str]]:
        """Wait for link codes: (acquisition number, link code), and ("", link code) of those to retire."""
        data = await self._ask("GET", f"/v1/codes?wait={POLL:g}", long=True)
        try:
            return [(str(number), str(code)) for number, code in unpack(data)]
        except (Malformed, TypeError, ValueError) as error:
            raise Unreachable("the codes cannot be read") from error

    async def forget(self, numbers: Sequence[str]) -> None:
        """Tell the network that these acquisition numbers have served: their codes are recorded here."""
        if numbers:
            await self._ask("POST", "/v1/codes/forget", pack([*numbers]))

    async def retire(self, link_codes: Sequence[str]) -> None:
        """Tell the network that these codes of ours are retired, or known to be."""
        if link_codes:
            await self._ask("POST", "/v1/codes/retire", pack([*link_codes]))

    async def accounts(self, after: int, since: str, until: str) -> tuple[int, list[Account]]:
        """A page of the network's records of our own exchanges, and where the next one begins (0: none).

        From one time to before another (ISO 8601, "" open).
        """
        body = pack({"after": after, "since": since, "until": until})
        try:
            following, found = unpack(await self._ask("POST", "/v1/records", body))
            return int(following), [account_from(values) for values in found]
        except (Malformed, TypeError, ValueError) as error:
            raise Unreachable("the network's records cannot be read") from error

    async def accounts_of(self, names: Sequence[Name]) -> list[Account | None]:
        """What the network has of each of these exchanges, or None."""
        try:
            found = unpack(await self._ask("POST", "/v1/records/of", pack([*names])))
            made = [account_from(values) if values is not None else None for values in found]
        except (Malformed, TypeError) as error:
            raise Unreachable("the network's records cannot be read") from error
        if len(made) != len(names):
            raise Unreachable("the network gave another number of records than wanted")
        return made

    async def _ask(self, method: str, path: str, body: bytes = b"", *, long: bool = False) -> bytes:
        client = self._long if long else self._short
        response = await client.request(method, path, body, timeout=POLL + 10 if long else 30.0)
        if response.status == 200:
            return response.body
        raise refusal_of(response.status, response.body)


def refusal_of(status: int, body: bytes) -> Exception:
    """The exception for an answer that is none: Refused where it carries a catalogue code."""
    try:
        values: Any = unpack(body)
        return Refused(Refusal(values["code"]))
    except (Malformed, TypeError, KeyError, ValueError):
        return Unreachable(f"the other side answered {status}")
