"""The reference network's door: HTTP over mutual TLS. Who calls is told by the line's certificate alone."""

from collections.abc import Awaitable, Callable

import trio

from adapters.http import Request, Response
from adapters.network.reference.core import NetworkCore
from adapters.witness.server import WitnessServer
from broker.linkage.crypto import CertificateInvalid, identity
from broker.linkage.partners import NETWORK
from schemas.messages import Envelope, Malformed, NetworkVerdict, build, pack, unpack

REGISTRY = "urn:renkei:registry"
AGENCY = "urn:renkei:agency:"
MAX_WAIT = 60.0
MAX_NAMES = 100
Call = Callable[[str, Request], Awaitable[Response]]


class NetworkServer:
    """Routes requests to the core; an agency acts only in its own name.

    With a witness, the network also cosigns the checkpoints of the agencies' ledgers, under /witness.
    """

    def __init__(self, core: NetworkCore, witness: WitnessServer | None = None) -> None:
        self._core = core
        self._witness = witness
        self._routes: dict[tuple[str, str], Call] = {
            ("POST", "/v1/registration"): self._register,
            ("GET", "/v1/directory"): self._directory,
            ("POST", "/v1/messages"): self._messages,
            ("GET", "/v1/mailbox"): self._mailbox,
            ("GET", "/v1/codes"): self._codes,
            ("POST", "/v1/codes/forget"): self._forget,
            ("POST", "/v1/codes/retire"): self._retire,
            ("POST", "/v1/codes"): self._issue,
            ("POST", "/v1/codes/changed"): self._changed,
            ("POST", "/v1/records"): self._records,
            ("POST", "/v1/records/of"): self._records_of,
        }

    async def handle(self, request: Request) -> Response:
        if self._witness and request.path.startswith("/witness/"):
            return await self._witness.handle(request)
        call = self._routes.get((request.method, request.path))
        if call is None:
            return Response(404)
        try:
            caller = identity(request.peer.certificate).uri
            return await call(caller, request)
        except CertificateInvalid:
            return Response(403, pack({"code": "N-101"}))
        except _Forbidden as error:
            return Response(403, pack({"code": error.code}))
        except (Malformed, KeyError, TypeError, ValueError):
            return Response(400, pack({"code": "N-111"}))

    async def _register(self, caller: str, request: Request) -> Response:
        values = unpack(request.body)
        refusal = await self._core.register(_agency(caller), values["certificate"], values["sealing_key"])
        if refusal is not None:
            raise _Forbidden(refusal.code)
        return Response(200, pack({"code": ""}))

    async def _directory(self, caller: str, request: Request) -> Response:
        _agency(caller)
        return Response(200, await self._core.directory())

    async def _messages(self, caller: str, request: Request) -> Response:
        sender = _agency(caller)
        messages = [
            (str(m["kind"]), build(Envelope, m["envelope"]), tuple(map(str, m["link_codes"])))
            for m in unpack(request.body)
        ]
        verdicts: dict[int, NetworkVerdict] = {}

        async def decide(index: int, kind: str, envelope: Envelope, codes: tuple[str, ...]) -> None:
            verdicts[index] = await self._core.submit(sender, kind, envelope, codes)

        async with trio.open_nursery() as nursery:
            for index, message in enumerate(messages):
                nursery.start_soon(decide, index, *message)
        return Response(200, pack([verdicts[index] for index in range(len(messages))]))

    async def _mailbox(self, caller: str, request: Request) -> Response:
        after, wait = int(request.query["after"]), _wait(request)
        return Response(200, pack(await self._core.mailbox(_agency(caller), after, wait)))

    async def _codes(self, caller: str, request: Request) -> Response:
        return Response(200, pack([*await self._core.codes.waiting(_agency(caller), _wait(request))]))

    async def _forget(self, caller: str, request: Request) -> Response:
        await self._core.codes.taken(_agency(caller), [str(number) for number in unpack(request.body)])
        return Response(200, pack({"code": ""}))

    async def _retire(self, caller: str, request: Request) -> Response:
        await self._core.codes.retire(_agency(caller), [str(code) for code in unpack(request.body)])
        return Response(200, pack({"code": ""}))

    async def _issue(self, caller: str, request: Request) -> Response:
        if caller != REGISTRY:
            raise _Forbidden("N-102")
        requests = [(str(a), str(n), str(r)) for a, n, r in unpack(request.body)]
        return Response(200, pack(await self._core.codes.issue(requests)))

    async def _changed(self, caller: str, request: Request) -> Response:
        if caller != REGISTRY:
            raise _Forbidden("N-102")
        changes = [(str(former), str(present)) for former, present in unpack(request.body)]
        await self._core.codes.record_code_changed(changes)
        return Response(200, pack({"code": ""}))

    async def _records(self, caller: str, request: Request) -> Response:
        """A page of the network's records of the caller's own exchanges; its operator reads all."""
        values = unpack(request.body)
        after, since, until = int(values["after"]), str(values["since"]), str(values["until"])
        return Response(200, pack(await self._core.accounts.page(_reader(caller), after, since, until)))

    async def _records_of(self, caller: str, request: Request) -> Response:
        """The network's records of these exchanges, nothing for others'."""
        names = [(str(i), str(p), str(message)) for i, p, message in unpack(request.body)]
        return Response(200, pack(await self._core.accounts.of(_reader(caller), names[:MAX_NAMES])))


class _Forbidden(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _agency(caller: str) -> str:
    if not caller.startswith(AGENCY):
        raise _Forbidden("N-101")
    return caller.removeprefix(AGENCY)


def _reader(caller: str) -> str:
    """Whose exchanges somebody may read: an agency its own, the network's operator all ("")."""
    return "" if caller == NETWORK else _agency(caller)


def _wait(request: Request) -> float:
    return min(float(request.query.get("wait", "0")), MAX_WAIT)
