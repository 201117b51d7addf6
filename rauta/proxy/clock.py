"""Wall-clock texts that change once a second and are asked for once a request."""

from __future__ import annotations

from email.utils import formatdate
from time import gmtime, localtime, strftime, time


class Clock:
    """The date for response heads and for log lines, made anew when the second has changed."""

    __slots__ = ("_date", "_date_of", "_second", "_second_of", "_stamp", "_stamp_of")

    def __init__(self) -> None:
        self._date_of = self._stamp_of = self._second_of = 0
        self._date = self._stamp = self._second = ""

    def http_date(self) -> str:
        """RFC 9110 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`."""
        now = int(time())
        if now != self._date_of:
            self._date_of = now
            self._date = formatdate(now, usegmt=True)
        return self._date

    def log_stamp(self) -> str:
        """Local time as the Common Log Format has it: `10/Oct/2000:13:55:36 -0700`."""
        now = int(time())
        if now != self._stamp_of:
            self._stamp_of = now
            self._stamp = strftime("%d/%b/%Y:%H:%M:%S %z", localtime(now))
        return self._stamp

    def utc_stamp(self) -> str:
        """RFC 3339 in UTC with milliseconds, as the event log has it: `2026-11-22T23:56:27.831Z`."""
        now = time()
        second = int(now)
        if second != self._second_of:
            self._second_of = second
            self._second = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        return f"{self._second}.{int((now - second) * 1000):03d}Z"
