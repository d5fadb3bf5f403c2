"""The door of a witness. Who may ask is told by the checkpoint's signature, not by the line."""

from collections.abc import Callable
from datetime import datetime

import trio

from adapters.http import Request, Response
from broker.ledger.witness import NotCosigned, Witness

TEXT = "text/plain; charset=utf-8"
SIZE = "text/x.tlog.size"


class WitnessServer:
    """Serves a witness under a prefix such as /witness."""

    def __init__(self, witness: Witness, prefix: str, clock: Callable[[], datetime]) -> None:
        self._witness = witness
        self._prefix = prefix
        self._clock = clock

    async def handle(self, request: Request) -> Response:
        match request.method, *request.path.removeprefix(f"{self._prefix}/").split("/"):
            case "POST", "add-checkpoint":
                return await self._add(request)
            case "GET", origin_hash, "checkpoint":
                note = await trio.to_thread.run_sync(self._witness.latest, origin_hash)
                return Response(200, note.encode(), TEXT) if note else Response(404)
        return Response(404)

    async def _add(self, request: Request) -> Response:
        time = int(self._clock().timestamp())
        try:
            lines = await trio.to_thread.run_sync(self._witness.cosign, request.body, time)
        except NotCosigned as refusal:
            if refusal.status == 409:
                return Response(409, f"{refusal.size}\n".encode(), SIZE)
            return Response(refusal.status, f"{refusal}\n".encode(), TEXT)
        return Response(200, "".join(f"{line}\n" for line in lines).encode(), TEXT)
