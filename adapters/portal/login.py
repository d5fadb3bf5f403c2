"""One-time links to the residents' page, and the sessions that they open.

A link stands in for the login by card (R-351), which needs the national service: an officer who has seen the
person's papers hands it over. Links and sessions are in memory; a restart ends them all.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

LIFE = timedelta(minutes=15)
AT_MOST = 10_000


@dataclass(frozen=True)
class _Grant:
    integrated_number: str
    until: datetime


class Links:
    """Issues links and opens sessions. `token` makes texts that cannot be guessed (at least 128 bits).

    Only digests are kept: neither the memory of the process nor the time of a look-up tells a token. Beyond
    `at_most` links or sessions, the one that was issued or used first ends early.
    """

    def __init__(
        self, clock: Callable[[], datetime], token: Callable[[], str], *, at_most: int = AT_MOST
    ) -> None:
        self._clock = clock
        self._token = token
        self._at_most = at_most
        # Both in the order in which they end.
        self._links: OrderedDict[bytes, _Grant] = OrderedDict()
        self._sessions: OrderedDict[bytes, _Grant] = OrderedDict()

    def issue(self, integrated_number: str) -> str:
        """A token for one person; it works once, within 15 minutes."""
        return self._grant(self._links, integrated_number)

    def redeem(self, token: str) -> str | None:
        """Use a token up; the id of the session that it opens, or None if it is unknown, used or too old."""
        grant = self._links.pop(_digest(token), None)
        if grant is None or grant.until <= self._clock():
            return None
        return self._grant(self._sessions, grant.integrated_number)

    def resident(self, session: str) -> str | None:
        """Whose session this is (integrated number); None once it was not used for 15 minutes, or is over."""
        key, now = _digest(session), self._clock()
        grant = self._sessions.pop(key, None)
        if grant is None or grant.until <= now:
            return None
        self._sessions[key] = _Grant(grant.integrated_number, now + LIFE)
        return grant.integrated_number

    def logout(self, session: str) -> None:
        """End a session; one that is not there stays so."""
        self._sessions.pop(_digest(session), None)

    def _grant(self, grants: OrderedDict[bytes, _Grant], integrated_number: str) -> str:
        now = self._clock()
        while grants and (len(grants) >= self._at_most or next(iter(grants.values())).until <= now):
            grants.popitem(last=False)
        text = self._token()
        grants[_digest(text)] = _Grant(integrated_number, now + LIFE)
        return text


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()
