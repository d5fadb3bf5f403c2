"""When bulk messages leave (送信スケジュール, R-199, R-200), and when something is sent again (再送, R-201).

A message about one person or a household leaves at once, and never waits behind one from a file. What goes in
bulk waits for its hours and keeps to its share of the line. Pure arithmetic: clock and chance are arguments.

Rules for sending again: without a verdict of the network the same bytes are sent again, by themselves, after
growing pauses. A verdict ends a message. A refused inquiry is asked again by an officer alone, under a new
request id that names the old one (broker.intermediate.inquiry.decide_again).
"""

from dataclasses import dataclass
from datetime import datetime, time, timedelta

BULK = 10
"""A message with more records than this is a bulk message: no household has so many (R-208)."""


@dataclass(frozen=True)
class Schedule:
    """Bulk fills up to `bytes_per_second` of the line (0: all), from `opens` to `closes` (equal: always)."""

    bytes_per_second: int = 0
    opens: time = time(0)
    closes: time = time(0)

    def leaves_at(self, free_at: datetime, now: datetime) -> datetime:
        """When the next bulk message may leave, if what left before keeps its share until `free_at`."""
        soonest = max(now, free_at)
        if self._within(soonest.time()):
            return soonest
        opening = datetime.combine(soonest.date(), self.opens, soonest.tzinfo)
        return opening if opening > soonest else opening + timedelta(days=1)

    def free_at(self, size: int, now: datetime) -> datetime:
        """Until when a message of so many bytes that leaves now keeps the share of bulk."""
        seconds = size / self.bytes_per_second if self.bytes_per_second else 0.0
        return now + timedelta(seconds=seconds)

    def _within(self, moment: time) -> bool:
        if self.opens == self.closes:
            return True
        if self.opens < self.closes:
            return self.opens <= moment < self.closes
        return moment >= self.opens or moment < self.closes


def read_schedule(bytes_per_second: int, hours: str) -> Schedule:
    """A schedule as configured; `hours` as 20:00-06:00, or "" for any time. Raises ValueError."""
    if bytes_per_second < 0:
        raise ValueError("less than no bytes a second")
    if not hours:
        return Schedule(bytes_per_second)
    opens, _, closes = hours.partition("-")
    return Schedule(bytes_per_second, time.fromisoformat(opens.strip()), time.fromisoformat(closes.strip()))


@dataclass(frozen=True)
class Backoff:
    """Pauses between attempts, in seconds: each twice as long as the one before, up to a ceiling."""

    first: float = 0.1
    longest: float = 5.0

    def pause(self, failures: int, chance: float) -> float:
        """How long to wait after so many failures in a row (from 1). `chance` (0 to 1) spreads those who wait
        for the same thing over half of the pause, so that they do not come back all at once."""
        doubled = self.first * 2.0 ** min(failures - 1, 60)
        return min(doubled, self.longest) * (0.5 + chance / 2)


NO_SCHEDULE, BACKOFF = Schedule(), Backoff()
