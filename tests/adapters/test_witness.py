"""Sealing over real lines: what witnesses add, what is done without them, and what is not believed."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
import trio

from adapters.http import Client, Handler, Request, Response, Tls, client_context, serve, server_context
from adapters.witness.client import Sealed, WitnessClient, seal
from adapters.witness.server import WitnessServer
from broker.ledger.folder import checkpoint_signer
from broker.ledger.notes import (
    Checkpoint,
    Kind,
    NoteInvalid,
    NoteSigner,
    NoteVerifier,
    open_note,
    parts,
    signer_of,
    with_signatures,
)
from broker.ledger.receipt import check_receipt, receipt
from broker.ledger.store import MemoryStore
from broker.ledger.witness import Submission, Witness
from ops.certificates import create_authority, issue
from tests.ledger.places import SIGNER, sign, stored, unit

LOG_PQ = NoteSigner(SIGNER.name, bytes(range(1, 33)), Kind.ML_DSA_44)
NETWORK = NoteSigner("test/network", bytes(range(2, 34)), Kind.COSIGNATURE)
NETWORK_PQ = NoteSigner("test/network", bytes(range(3, 35)), Kind.ML_DSA_44)
NEIGHBOUR = NoteSigner("test/neighbour", bytes(range(4, 36)), Kind.COSIGNATURE)
KEYS = [signer.verifier_key for signer in (SIGNER, LOG_PQ, NETWORK, NETWORK_PQ, NEIGHBOUR)]
TIME = 1_795_219_200


def clock() -> datetime:
    return datetime.fromtimestamp(TIME, UTC)


def known(origin: str) -> list[NoteVerifier]:
    return [NoteVerifier(key) for key in KEYS[:2] if origin == SIGNER.name]


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    create_authority(folder)
    issue(folder, "network", "urn:renkei:network", purpose="tls")
    issue(folder, "agency", "urn:renkei:agency:990019", purpose="tls")
    return folder


def as_agency(tls: Path) -> Tls:
    return client_context(tls / "agency-tls.pem", tls / "agency-tls.key", tls / "ca.pem")


@asynccontextmanager
async def line(tls: Path, handler: Handler) -> AsyncIterator[Client]:
    """A client of a server that runs for as long."""
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[int]) -> None:
            context = server_context(tls / "network-tls.pem", tls / "network-tls.key", tls / "ca.pem")
            await serve(handler, "127.0.0.1", 0, context, task_status=task_status)

        port = await nursery.start(run)
        async with Client("127.0.0.1", port, as_agency(tls)) as client:
            yield client
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def witnessed(tls: Path, path: Path, *signers: NoteSigner) -> AsyncIterator[WitnessClient]:
    """A witness with its file at a path, as the log knows it for the first time."""
    with closing(Witness(path, signers, known)) as witness:
        async with line(tls, WitnessServer(witness, "/witness", clock).handle) as client:
            yield WitnessClient(client, "/witness", [signer.verifier_key for signer in signers])


def filled(*counts: int) -> MemoryStore:
    store = MemoryStore(sign)
    for number, count in enumerate(counts):
        stored(store, unit(f"m{number}", (f"s{number}", 0, count)))
    return store


def who(sealed: Sealed) -> list[tuple[str, bytes]]:
    return sorted(signer_of(line)[:2] for line in sealed.lines)


def ids(*signers: NoteSigner) -> list[tuple[str, bytes]]:
    return sorted((signer.name, signer.key_id) for signer in signers)


def codes(sealed: Sealed) -> list[str]:
    return [refusal.code for refusal in sealed.missing]


# -- sealing ------------------------------------------------------------------------------------------


async def test_a_checkpoint_is_sealed_by_the_log_and_its_witnesses(tls: Path, tmp_path: Path) -> None:
    store = filled(300)
    async with (
        witnessed(tls, tmp_path / "network.sqlite", NETWORK, NETWORK_PQ) as network,
        witnessed(tls, tmp_path / "neighbour.sqlite", NEIGHBOUR) as neighbour,
    ):
        sealed = await seal(store, [LOG_PQ], [network, neighbour], clock)
    assert (sealed.size, sealed.missing) == (300, ())
    assert who(sealed) == ids(LOG_PQ, NETWORK, NETWORK_PQ, NEIGHBOUR)
    assert sorted(store.cosignatures(300)) == sorted(sealed.lines)
    note = with_signatures(store.head().note, store.cosignatures(300))
    _, signed = open_note(note, [NoteVerifier(key) for key in KEYS])
    assert [each.time for each in signed] == [0, TIME, *[TIME] * 3]
    assert len(check_receipt(receipt(store, 7), *KEYS).signed) == 5


async def test_sealing_goes_on_from_what_each_witness_saw(tls: Path, tmp_path: Path) -> None:
    store = filled(10)
    async with witnessed(tls, tmp_path / "network.sqlite", NETWORK) as network:
        for size in (10, 300, 301, 700):
            if size > 10:
                stored(store, unit(f"to {size}", (f"to {size}", 0, size - store.head().size)))
            assert who(await seal(store, [LOG_PQ], [network], clock)) == ids(LOG_PQ, NETWORK)
    for size in (10, 300, 301, 700):
        assert len(store.cosignatures(size)) == 2


async def test_a_restarted_log_asks_from_where_the_witness_stands(tls: Path, tmp_path: Path) -> None:
    store = filled(10)
    async with witnessed(tls, tmp_path / "network.sqlite", NETWORK) as network:
        await seal(store, [], [network], clock)
    stored(store, unit("more", ("more", 0, 290)))
    async with witnessed(tls, tmp_path / "network.sqlite", NETWORK) as network:
        sealed = await seal(store, [], [network], clock)
    assert (who(sealed), sealed.size, sealed.missing) == (ids(NETWORK), 300, ())


async def test_what_is_sealed_is_not_sealed_again(tls: Path, tmp_path: Path) -> None:
    store = filled(10)
    async with witnessed(tls, tmp_path / "network.sqlite", NETWORK) as network:
        await seal(store, [LOG_PQ], [network], clock)
        kept = store.cosignatures(10)
        assert await seal(store, [LOG_PQ, SIGNER], [network], clock) == Sealed(10, (), ())
    assert store.cosignatures(10) == kept


async def test_there_is_nothing_to_seal_in_an_empty_log(tls: Path, tmp_path: Path) -> None:
    async with witnessed(tls, tmp_path / "network.sqlite", NETWORK) as network:
        assert await seal(MemoryStore(sign), [LOG_PQ], [network], clock) == Sealed(0, (), ())


async def test_a_witness_that_is_away_stops_nobody_and_is_asked_again(tls: Path, tmp_path: Path) -> None:
    store = filled(10)
    with socket.socket() as silent:  # bound, so that nobody else gets the port, but not listening
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        away = WitnessClient(Client("127.0.0.1", port, as_agency(tls)), "/witness", [NETWORK.verifier_key])
        async with witnessed(tls, tmp_path / "neighbour.sqlite", NEIGHBOUR) as neighbour:
            sealed = await seal(store, [LOG_PQ], [away, neighbour], clock)
            assert (who(sealed), codes(sealed)) == (ids(LOG_PQ, NEIGHBOUR), ["S-121"])
            assert sealed.missing[0].detail.startswith(f"test/network: 127.0.0.1:{port}")
            async with witnessed(tls, tmp_path / "network.sqlite", NETWORK) as back:
                sealed = await seal(store, [LOG_PQ], [back, neighbour], clock)
    assert (who(sealed), codes(sealed)) == (ids(NETWORK), [])
    assert len(store.cosignatures(10)) == 3


# -- what a witness says against a log ----------------------------------------------------------------


async def test_a_log_that_was_cut_back_is_found_out(tls: Path, tmp_path: Path) -> None:
    store = filled(10, 290)
    async with witnessed(tls, tmp_path / "network.sqlite", NETWORK) as network:
        await seal(store, [], [network], clock)
        sealed = await seal(filled(10), [LOG_PQ], [network], clock)
    assert (who(sealed), codes(sealed)) == (ids(LOG_PQ), ["S-122"])
    assert sealed.missing[0].detail == "test/network: 300 > 10"


async def test_a_log_that_was_rewritten_is_found_out(tls: Path, tmp_path: Path) -> None:
    async with witnessed(tls, tmp_path / "network.sqlite", NETWORK) as network:
        await seal(filled(10, 290), [], [network], clock)
        for rewritten in (filled(11, 500), filled(11, 289)):
            sealed = await seal(rewritten, [], [network], clock)
            assert (who(sealed), codes(sealed)) == ([], ["S-122"])
            assert rewritten.cosignatures(rewritten.head().size) == []


async def test_a_log_that_the_witness_does_not_know(tls: Path, tmp_path: Path) -> None:
    store = MemoryStore(checkpoint_signer(NoteSigner("test/other", bytes(32))))
    stored(store, unit("m", ("s", 0, 10)))
    async with witnessed(tls, tmp_path / "network.sqlite", NETWORK) as network:
        sealed = await seal(store, [], [network], clock)
    assert [(each.code, each.detail) for each in sealed.missing] == [("S-121", "test/network: HTTP 404")]


# -- what is not believed of a witness ----------------------------------------------------------------

TEXT = parts(filled(10).head().note)[0]
OTHER_TEXT = Checkpoint(SIGNER.name, 11, bytes(32)).text()
Answer = Callable[[], Response]


def cosigned(*lines: str) -> Response:
    return Response(200, "".join(f"{line}\n" for line in lines).encode(), "text/plain")


FALSE: dict[str, Answer] = {
    "of another checkpoint": lambda: cosigned(NETWORK.line(OTHER_TEXT, TIME)),
    "with a key that is not its own": lambda: cosigned(NEIGHBOUR.line(TEXT, TIME)),
    "in its name": lambda: cosigned(NoteSigner("test/network", bytes(32), Kind.COSIGNATURE).line(TEXT, TIME)),
    "without a time": lambda: cosigned(NETWORK.line(TEXT, 0)),
    "one of two false": lambda: cosigned(NETWORK.line(TEXT, TIME), NETWORK_PQ.line(OTHER_TEXT, TIME)),
    "one of two without a time": lambda: cosigned(NETWORK.line(TEXT, TIME), NETWORK_PQ.line(TEXT, 0)),
    "under a text of its own": lambda: Response(200, f"x\n\n{NETWORK.line(TEXT, TIME)}\n".encode()),
    "under another checkpoint": lambda: Response(
        200, f"{OTHER_TEXT}\n{NETWORK.line(OTHER_TEXT, TIME)}\n".encode()
    ),
    "without an end": lambda: Response(200, NETWORK.line(TEXT, TIME).encode()),
    "of nothing": lambda: Response(200),
    "no UTF-8": lambda: Response(200, b"\xff\n"),
    "no signature": lambda: Response(200, b"thank you\n"),
    "another status": lambda: Response(204),
    "a failure": lambda: Response(500),
    "no size": lambda: Response(409, b"ten\n", "text/x.tlog.size"),
    "a size with a zero": lambda: Response(409, b"05\n", "text/x.tlog.size"),
    "a size of bytes": lambda: Response(409, b"\xff\n", "text/x.tlog.size"),
    "always a size": lambda: Response(409, b"5\n", "text/x.tlog.size"),
}


@pytest.mark.parametrize("answer", FALSE)
async def test_an_answer_that_is_no_cosignature(answer: str, tls: Path) -> None:
    store = filled(10)
    asked: list[Request] = []

    async def handler(request: Request) -> Response:
        asked.append(request)
        return FALSE[answer]()

    async with line(tls, handler) as client:
        liar = WitnessClient(client, "/w", [NETWORK.verifier_key, NETWORK_PQ.verifier_key])
        sealed = await seal(store, [], [liar], clock)
    assert codes(sealed) == ["S-121"]
    assert sealed.lines == ()
    assert store.cosignatures(10) == []
    assert 1 <= len(asked) <= 3
    assert {request.path for request in asked} == {"/w/add-checkpoint"}


async def test_a_stranger_s_line_beside_the_witness_s_is_dropped(tls: Path) -> None:
    async def handler(_: Request) -> Response:
        return cosigned(NEIGHBOUR.line(TEXT, TIME), NETWORK.line(TEXT, TIME))

    store = filled(10)
    async with line(tls, handler) as client:
        await seal(store, [], [WitnessClient(client, "", [NETWORK.verifier_key])], clock)
    assert store.cosignatures(10) == [NETWORK.line(TEXT, TIME)]


def test_a_log_s_key_is_none_of_a_witness(tls: Path) -> None:
    for key in (SIGNER.verifier_key, "something"):
        with pytest.raises(NoteInvalid):
            WitnessClient(Client("127.0.0.1", 9, as_agency(tls)), "/witness", [key])


# -- the door -----------------------------------------------------------------------------------------


async def test_the_statuses_of_the_protocol(tls: Path, tmp_path: Path) -> None:
    store = filled(10)
    with closing(Witness(tmp_path / "witness.sqlite", [NETWORK], known)) as witness:
        async with line(tls, WitnessServer(witness, "/witness", clock).handle) as client:

            async def answer(old: int, note: str, *proof: bytes) -> tuple[int, str, bytes]:
                body = Submission(old, proof, note).text().encode()
                response = await client.request("POST", "/witness/add-checkpoint", body)
                return response.status, response.content_type, response.body

            text, note = TEXT, store.head().note
            status, _, body = await answer(0, note)
            assert (status, body.decode()) == (200, f"{NETWORK.line(text, TIME)}\n")
            assert await answer(0, note) == (409, "text/x.tlog.size", b"10\n")
            assert (await answer(11, note))[0] == 400
            assert (await answer(10, note.replace("A", "B")))[0] == 403
            unknown = NoteSigner("x", bytes(32)).sign(text.replace(SIGNER.name, "x"))
            assert (await answer(10, unknown))[0] == 404
            assert (await answer(10, note, bytes(32)))[0] == 422
            assert (await client.request("POST", "/witness/add-checkpoint", b"x")).status == 400
            name = sha256(SIGNER.name.encode()).hexdigest()
            shown = await client.request("GET", f"/witness/{name}/checkpoint")
            assert (shown.status, shown.body.decode()) == (200, f"{note}{NETWORK.line(text, TIME)}\n")
            for method, path in (
                ("GET", f"/witness/{'0' * 64}/checkpoint"),
                ("GET", "/witness/add-checkpoint"),
                ("POST", "/witness/sign-subtree"),
                ("POST", f"/witness/{name}/checkpoint"),
                ("GET", "/witness/"),
            ):
                assert (await client.request(method, path)).status == 404
