"""The reference registry server: turns an individual number into a resident record code for the network.

It keeps no trace of an acquisition: the number passes through (Act art. 21-2(3)).
"""

from collections.abc import Mapping

from adapters.http import Client, Request, Response, Unreachable
from broker.linkage.crypto import CertificateInvalid, identity
from schemas.messages import Malformed, pack, unpack

_AGENCY = "urn:renkei:agency:"


class RegistryServer:
    """`register` maps individual numbers to resident record codes; `network` is asked in the same breath."""

    def __init__(self, register: Mapping[str, str], network: Client) -> None:
        self._register = register
        self._network = network

    async def handle(self, request: Request) -> Response:
        if (request.method, request.path) != ("POST", "/v1/acquisitions"):
            return Response(404)
        try:
            caller = identity(request.peer.certificate).uri
            asked = [(str(number), str(individual)) for number, individual in unpack(request.body)]
        except CertificateInvalid:
            return Response(403, pack({"code": "J-102"}))
        except (Malformed, TypeError, ValueError):
            return Response(400, pack({"code": "N-111"}))
        if not caller.startswith(_AGENCY):
            return Response(403, pack({"code": "J-102"}))
        agency = caller.removeprefix(_AGENCY)
        known = [(agency, n, self._register[i]) for n, i in asked if i in self._register]
        try:
            verdicts = iter(await self._pass_on(known))
        except Unreachable:
            return Response(503, pack({"code": "S-103"}))
        return Response(200, pack([next(verdicts) if i in self._register else "J-101" for _, i in asked]))

    async def _pass_on(self, requests: list[tuple[str, str, str]]) -> list[str]:
        if not requests:
            return []
        response = await self._network.request("POST", "/v1/codes", pack([*requests]))
        if response.status != 200:
            raise Unreachable(f"the network answered {response.status}")
        return [str(code) for code in unpack(response.body)]
