"""Wall-clock texts that change once a second and are asked for once a request."""

from __future__ import annotations

from email.utils import formatdate
from time import localtime, strftime, time


class Clock:
    """The date for response heads and for log lines, made anew when the second has changed."""

    __slots__ = ("_date", "_date_of", "_stamp", "_stamp_of")

    def __init__(self) -> None:
        self._date_of = self._stamp_of = 0
        self._date = self._stamp = ""

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
