"""The commands of those who keep the keys: list, rotate and destroy them, and ask for what is past its time.

They work on a folder of ledgers, also while a daemon runs on it. A destruction takes two operators: one asks,
another one confirms.
"""

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from broker.ledger import erasure
from broker.ledger.events import DestructionAsked, key_of
from broker.ledger.folder import VERIFIER_KEY, LedgerFolder
from broker.ledger.ledger import Clock, Ledger
from broker.ledger.notes import NoteVerifier
from broker.ledger.store import Store
from broker.ledger.vault import Erased, KeyState
from ops.audit import ledgers, say
from ops.daemons import open_ledger, opened_stores
from ops.logs import JST, now
from ops.terminal import fail, progress_bar
from schemas.errors import Refused
from schemas.law import Retention, retentions

T = TypeVar("T")
PERSON = "person"
PAGE = 2_000
ENDLESS = "本人の記録が閉じられるまで期限なし (no end until the person's entry is closed)"


def list_keys(folder: Path, store: str) -> int:
    """Every key by ledger, with its state; keys of persons are counted."""
    with _opened(folder, store) as found:
        if not found:
            return _no_ledger(folder)
        for ledger_folder in found:
            vault, ledger = ledger_folder.vault, ledger_folder.ledger
            say(f"{ledger.name} (KEK {vault.kek_id})")
            persons: Counter[bool] = Counter()
            for key in vault.states():
                if _class(key) == PERSON and (key.destroyed or not key.rule):
                    persons[bool(key.destroyed)] += 1
                else:
                    say(f"  {key.id}: {_state(ledger, key)}")
            if persons:
                in_use, gone = persons[False], persons[True]
                say(f"  {PERSON}/*: 使用中 {in_use} 件、消去済み {gone} 件 (in use / destroyed)")
    return 0


def _state(ledger: Ledger, key: KeyState) -> str:
    if key.destroyed:
        return str(Erased(key.rule, key.destroyed))
    if not key.rule:
        return "使用中 (in use)"
    state = trio.run(erasure.state_of, ledger, key.id)
    request, by = (state.asked.request, state.asked.by) if state.asked is not None else ("", "")
    said = (
        "消去を確認済み、未完了 (confirmed, to be confirmed again)"
        if state.step == erasure.CONFIRMED
        else "消去を請求中 (asked to be destroyed)"
    )
    return f"{said}: {request} {by} {key.rule}"


def rotate(folder: Path, store: str) -> int:
    """A new key-encryption key for every ledger; events stay as they are."""
    with _opened(folder, store) as found:
        if not found:
            return _no_ledger(folder)
        for ledger_folder in found:
            before = ledger_folder.vault.kek_id
            say(f"{ledger_folder.ledger.name}: KEK {before} → {ledger_folder.vault.rotate()}")
    return 0


def ask(folder: Path, store: str, key: str, rule: str, by: str) -> int:
    """The first person's part: ask for the destruction of a key."""
    return _destruction(
        folder,
        store,
        key,
        lambda ledger: erasure.ask(ledger, key, rule, by, secrets.token_hex(4)),
        lambda request: (
            f"請求 {request}: 別の人の確認を待ちます (asked; another person confirms)\n"
            f"  renkei keys destroy {folder} {key} --confirm {request} --by …"
        ),
    )


def confirm(folder: Path, store: str, key: str, request: str, by: str, clock: Clock = now) -> int:
    """The second person's part: confirm the request, and the key is destroyed."""
    return _destruction(
        folder,
        store,
        key,
        lambda ledger: erasure.confirm(ledger, key, request, by, clock),
        lambda erased: f"{key}: {erased}",
    )


def _destruction(
    folder: Path,
    store: str,
    key: str,
    work: Callable[[Ledger], Awaitable[T]],
    said: Callable[[T], str],
) -> int:
    with _opened(folder, store) as found:
        holding = [f for f in found if any(known.id == key for known in f.vault.states())]
        if len(holding) != 1:
            return fail("S-110", key)
        try:
            say(said(_at_work(holding[0].ledger, work)))
        except Refused as error:
            return fail(error.refusal.code, error.refusal.detail)
    return 0


def retain(folder: Path, store: str, by: str | None, clock: Clock = now) -> int:
    """List what is kept until when; in somebody's name, ask for the destruction of what is past its time."""
    today = clock().astimezone(JST).date()
    with _opened(folder, store) as found:
        if not found:
            return _no_ledger(folder)
        for ledger_folder in found:
            due = _listed(ledger_folder, today)
            if by is not None and due:
                for key, request in _at_work(ledger_folder.ledger, partial(_requests, due, by)):
                    say(f"    renkei keys destroy {folder} {key} --confirm {request} --by …")
    return 0


def _listed(ledger_folder: LedgerFolder, today: date) -> dict[str, str]:
    """Say what one ledger keeps until when; returns what is past its time: key and rule."""
    ledger, due = ledger_folder.ledger, {}
    say(ledger.name)
    events = _events_by_key(ledger.store, ledger.name)
    keys = [key for key in ledger_folder.vault.states() if not key.destroyed]
    persons = [key for key in keys if _class(key) == PERSON]
    for key in keys:
        if _class(key) == PERSON:
            continue
        kept = retentions().get(_class(key))
        if kept is not None and kept.ends(_month(key)) < today:
            due[key.id] = kept.rule
        say(f"  {key.id}: {events[key.id]} 件 (events) {_period(kept, key, over=key.id in due)}")
    if persons:
        total = sum(events[key.id] for key in persons)
        say(f"  {PERSON}/*: {len(persons)} 鍵 (keys) {total} 件 (events) {ENDLESS}")
    say(f"  封のない記録 {events[None]} 件 (events with nothing sealed)")
    return due


async def _requests(due: Mapping[str, str], by: str, ledger: Ledger) -> list[tuple[str, str]]:
    """A request for each key that is due: a new one, or the one that somebody made before.

    That one is asked for again: a crash may have come between its record and the closing of its key.
    """
    found = []
    for key, rule in due.items():
        before = (await erasure.state_of(ledger, key)).asked
        asked = before or DestructionAsked(key, secrets.token_hex(4), rule, by)
        found.append((key, await erasure.ask(ledger, key, asked.rule, asked.by, asked.request)))
    return found


def _period(kept: Retention | None, key: KeyState, *, over: bool) -> str:
    if kept is None:
        return "保存期間の定めなし (no period is set)"
    ends = kept.ends(_month(key)).isoformat()
    said = "期間満了、消去の対象 (over: to be destroyed)" if over else "保存中 (kept)"
    asked = "、消去を請求済み (asked)" if key.rule else ""
    return f"{ends} まで (until) {said}{asked}"


def _class(key: KeyState) -> str:
    return key.name.partition("/")[0]


def _month(key: KeyState) -> str:
    return key.name.partition("/")[2]


def _events_by_key(store: Store, name: str) -> Counter[str | None]:
    """How many events each key sealed, by its id; None: those of which nothing is sealed."""
    counts: Counter[str | None] = Counter()
    size, position = store.head().size, 0
    with progress_bar() as progress:
        task = progress.add_task(name, total=size)
        while position < size:
            page = store.events(position, PAGE)
            counts.update(key_of(stored.state) for stored in page)
            position = page[-1].id
            progress.update(task, completed=position)
    return counts


def _no_ledger(folder: Path) -> int:
    return fail("S-104", f"{folder}: 台帳がありません (no ledger)")


@contextmanager
def _opened(folder: Path, store: str) -> Iterator[list[LedgerFolder]]:
    """The ledgers at or below a folder, each with its vault."""
    with opened_stores(store) as open_store, ExitStack() as stack:
        found = []
        for path in ledgers(folder):
            origin = NoteVerifier((path / VERIFIER_KEY).read_text(encoding="utf-8")).name
            found.append(stack.enter_context(closing(open_ledger(path, origin, open_store))))
        yield found


def _at_work(ledger: Ledger, work: Callable[[Ledger], Awaitable[T]]) -> T:
    """Do something with a ledger that takes events meanwhile."""

    async def running() -> T | Refused:
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            result: T | Refused
            try:
                result = await work(ledger)
            except Refused as error:  # carried out of the nursery as it is, not in a group
                result = error
            nursery.cancel_scope.cancel()
        return result

    found = trio.run(running)
    if isinstance(found, Refused):
        raise found
    return found
