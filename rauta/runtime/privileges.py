"""Rights that workers and agent do without: they parse what strangers send.

With `--user` the supervisor, which keeps its own, starts them as that user. Whoever starts them, they can get no
privileges any more, whatever they execute (PR_SET_NO_NEW_PRIVS, prctl(2)).
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
from dataclasses import dataclass
from typing import Any, Final

from rauta.runtime.errors import StartError

_PR_SET_NO_NEW_PRIVS: Final = 38


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who runs a process: user, group and the user's other groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def for_popen(self) -> dict[str, Any]:
        """Arguments of subprocess.Popen."""
        return {"user": self.uid, "group": self.gid, "extra_groups": list(self.groups)}


def identity_of(text: str) -> Identity:
    """`USER` or `USER:GROUP`, names or numbers. Raises StartError."""
    name, _, group = text.partition(":")
    try:
        user = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        raise StartError(f"--user: there is no user {name!r}") from None
    gid = user.pw_gid
    if group:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise StartError(f"--user: there is no group {group!r}") from None
    if os.geteuid() != 0 and user.pw_uid != os.geteuid():
        raise StartError(f"--user: only root can start workers as {name!r}")
    groups = () if group else tuple(sorted(os.getgrouplist(user.pw_name, gid)))
    return Identity(uid=user.pw_uid, gid=gid, groups=groups)


def no_new_privileges() -> None:
    """For this process and all that it starts, for good. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
