"""An agency asks the registry server to have link codes made (Order art. 27(1))."""

from collections.abc import Sequence

from adapters.http import Client, Unreachable
from adapters.network.client import refusal_of
from schemas.messages import Malformed, pack, unpack


class RegistryClient:
    """Raises Unreachable and Refused, as the network's client does."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def acquire(self, requests: Sequence[tuple[str, str]]) -> list[str]:
        """(acquisition number, individual number) -> a code for each: "" when the network was asked."""
        response = await self._client.request("POST", "/v1/acquisitions", pack([*requests]))
        if response.status != 200:
            raise refusal_of(response.status, response.body)
        try:
            verdicts = [str(code) for code in unpack(response.body)]
        except (Malformed, TypeError) as error:
            raise Unreachable("the registry's verdicts cannot be read") from error
        if len(verdicts) != len(requests):
            raise Unreachable("the registry gave another number of verdicts than requests")
        return verdicts
