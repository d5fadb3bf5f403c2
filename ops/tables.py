"""`renkei status` and `renkei rebuild`: where the projections of a process stand, and how they are made anew.

Both work on the files and the store that the configuration names, whether the daemon runs or not. A running
one goes on reading, writing and following meanwhile, and moves over to the new tables by itself; and as the
work is done in this process, it costs that one no time.
"""

import os
from contextlib import closing
from pathlib import Path

from broker.ledger.folder import PROJECTIONS
from broker.ledger.projections import Lag, Parked, ProjectionTables, RebuildUnderWay
from broker.ledger.projections import rebuild as rebuild_beside
from ops.audit import Evidence, evidence, say
from ops.config import AgencyConfig, ConfigurationError, NetworkConfig
from ops.logs import now
from ops.replay import bar, local, tell_parked, told
from ops.terminal import fail
from schemas.errors import Refusal, Refused

BEHIND = 19  # how far behind: the daemon's work goes first


def status(config: AgencyConfig | NetworkConfig) -> int:
    """Print where each ledger ends and each projection stands; exit status 1 if an event is parked."""
    parked: list[Parked] = []
    with evidence(Path(config.data), config.store) as found:
        for ledger in found:
            parked += _tell(ledger)
    codes = sorted({each.reason.split()[0] for each in parked})
    return max((fail(code) for code in codes), default=0)


def _tell(ledger: Evidence) -> list[Parked]:
    with ledger.store() as store, closing(_opened(ledger)) as tables:
        head = store.head()
        recorded = f" {local(head.at)}" if head.at else ""
        say(f"{ledger.origin()} @{head.size}{recorded} (end of the ledger)")
        for lag in tables.lags(store, now()):
            say(f"  {_line(lag)}")
        parked = tables.parked()
        tell_parked(ledger.origin(), parked)
        return parked


def _opened(ledger: Evidence) -> ProjectionTables:
    file = ledger.path / PROJECTIONS
    if not file.exists():
        raise ConfigurationError(f"{file}: 一覧がまだありません (no projections yet)")
    return ProjectionTables(file, ledger.kind()[1])


def _line(lag: Lag) -> str:
    behind = f"遅れ {lag.events} 件 {lag.seconds:.1f} 秒 (behind)" if lag.events else "最新 (up to date)"
    parked = f" 保留 {lag.parked} 件 (parked)" if lag.parked else ""
    return f"{lag.projection} @{lag.position} {behind}{parked}"


def rebuild(config: AgencyConfig | NetworkConfig, projection: str | None) -> int:
    """Build projections anew beside those in use and put them in their place; all of them, or one."""
    os.nice(BEHIND)
    return told(lambda: _rebuild_all(config, projection))


def _rebuild_all(config: AgencyConfig | NetworkConfig, projection: str | None) -> bool:
    with evidence(Path(config.data), config.store) as found:
        names = [(ledger, [p.name for p in ledger.kind()[1]]) for ledger in found]
        wanted = [ledger for ledger, kept in names if projection is None or projection in kept]
        if not wanted:
            every = ", ".join(name for _, kept in names for name in kept)
            raise Refused(Refusal("S-137", f"{projection} ({every})"))
        for ledger in wanted:
            _rebuild(ledger, () if projection is None else (projection,))
    return True


def _rebuild(ledger: Evidence, names: tuple[str, ...]) -> None:
    registry, projections = ledger.kind()
    path = ledger.path / PROJECTIONS
    with ledger.store() as store, bar(f"再構築 {ledger.name}", 0, store.head().size) as show:
        try:
            rebuild_beside(path, projections, store, registry, names, progress=show)
        except RebuildUnderWay as error:
            raise Refused(Refusal("S-133", ledger.name)) from error
    with closing(ProjectionTables(path, projections)) as tables:
        for name, (position, _) in tables.tracking().items():
            if not names or name in names:
                say(f"REBUILT {ledger.origin()} {name} @{position}")
        tell_parked(ledger.origin(), tables.parked())
