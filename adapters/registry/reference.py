"""The reference registry server: turns an individual number into a resident record code for the network.

It keeps no trace of an acquisition: the number passes through (Act art. 21-2(3)).
"""

from collections.abc import Collection, Mapping, Sequence
from csv import DictReader
from pathlib import Path
from types import MappingProxyType

from adapters.http import Client, Request, Response, Unreachable
from broker.linkage.crypto import CertificateInvalid, identity
from schemas.messages import Malformed, pack, unpack

_AGENCY = "urn:renkei:agency:"
_FORMS = (11, 12)  # digits of a resident record code, of an individual number
_NONE: Mapping[str, str] = MappingProxyType({})


class RegistryServer:
    """`register` maps individual numbers to resident record codes ("" for whoever has none); `network` is
    asked in the same breath.

    `renumbered` are individual numbers that are in use no longer, because their holders got others (Act art.
    7(2)); `former` maps a resident record code to the one that the person had before it.
    """

    def __init__(
        self,
        register: Mapping[str, str],
        network: Client,
        renumbered: Collection[str] = (),
        former: Mapping[str, str] = _NONE,
    ) -> None:
        self._register = register
        self._network = network
        self._renumbered = renumbered
        self._former = former

    @classmethod
    def read(cls, path: Path, network: Client) -> "RegistryServer":
        """The register of a file (CSV in cp932): resident_record_code, individual_number, and where a person
        had others before, former_resident_record_code and former_individual_number."""
        with path.open(encoding="cp932", newline="") as file:
            rows = list(DictReader(file))
        return cls(
            {row["individual_number"]: row["resident_record_code"] for row in rows},
            network,
            frozenset(row.get("former_individual_number", "") for row in rows) - {""},
            {
                row["resident_record_code"]: row["former_resident_record_code"]
                for row in rows
                if row.get("former_resident_record_code")
            },
        )

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
        try:
            return Response(200, pack([*await self.acquire(caller.removeprefix(_AGENCY), asked)]))
        except Unreachable:
            return Response(503, pack({"code": "S-103"}))

    async def acquire(self, agency: str, asked: Sequence[tuple[str, str]]) -> list[str]:
        """(acquisition number, individual number) of an agency -> a code for each: "" where the network was
        told. Raises Unreachable where the network cannot be told; then nothing is promised.

        J-101: no such number; J-103: the person has another number now; J-104: the person has no resident
        record code; J-105: not a number to acquire with; J-106: one number for several persons.
        """
        meant: dict[str, set[str]] = {}
        for number, individual in asked:
            meant.setdefault(number, set()).add(individual)
        verdicts = [
            "J-106" if len(meant[number]) > 1 else self._refused(number, individual)
            for number, individual in asked
        ]
        passed = [
            (agency, number, self._register[individual])
            for (number, individual), code in zip(asked, verdicts, strict=True)
            if not code
        ]
        given = iter(await self._pass_on(passed))
        return [code or next(given) for code in verdicts]

    def _refused(self, number: str, individual: str) -> str:
        # Nothing of the form of an individual number or a resident record code (Act art. 21-2(2)).
        if not number or (number.isdecimal() and len(number) in _FORMS):
            return "J-105"
        if individual in self._renumbered:
            return "J-103"
        if individual not in self._register:
            return "J-101"
        return "" if self._register[individual] else "J-104"

    async def _pass_on(self, requests: Sequence[tuple[str, str, str]]) -> list[str]:
        if not requests:
            return []
        changed = [(self._former[code], code) for _, _, code in requests if code in self._former]
        if changed:
            await self._tell("/v1/codes/changed", changed)
        response = await self._tell("/v1/codes", requests)
        return [str(code) for code in unpack(response.body)]

    async def _tell(self, path: str, values: Sequence[tuple[str, ...]]) -> Response:
        response = await self._network.request("POST", path, pack([*values]))
        if response.status != 200:
            raise Unreachable(f"the network answered {response.status}")
        return response
