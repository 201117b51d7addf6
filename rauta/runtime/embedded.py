"""A gateway of processes that a program embeds. The program (`rauta.embed.processes`) starts it as

    python -m rauta.runtime.embedded control=7 program=1234 columns=8,9 events=10 stderr=11

with an end of the control connection, its own pid, the memory that workers count in, its end of the pipe for events
(descriptor 2 is the other) and, if it has one, its own standard error. See `program` for what is said.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence

from rauta.routing.errors import RautaError
from rauta.runtime import logfile, start
from rauta.runtime.control import Failed, Wanted, encode, receive_wanted, unpack
from rauta.runtime.errors import EXIT_CONFIGURATION, EXIT_FAILURE, EXIT_OK, StartError
from rauta.runtime.log import EventLog, lose_what_has_no_room
from rauta.runtime.program import Program


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the module."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the thread that started this may have blocked some
    lose_what_has_no_room()
    events = EventLog(terminal=False)
    arguments = dict(argument.partition("=")[::2] for argument in (sys.argv[1:] if argv is None else argv))
    if not {"control", "program", "columns", "events"} <= arguments.keys():
        events.text("rauta: this is started by rauta.api.Gateway; use `python -m rauta.proxy`")
        return EXIT_CONFIGURATION
    columns = [int(number) for number in arguments["columns"].split(",")]
    control, pipe = socket.socket(fileno=int(arguments["control"])), int(arguments["events"])
    if "stderr" in arguments:
        stderr = int(arguments["stderr"])
        os.set_inheritable(stderr, False)
        logfile.stderr_is(stderr)
    for fd in (*columns, control.fileno(), pipe):
        os.set_inheritable(fd, False)
    last_words = control.dup()
    try:
        wanted = receive_wanted(control)
        if wanted is None:
            return EXIT_OK
        control.setblocking(False)
        return _serve(Program(control, int(arguments["program"]), wanted, columns, pipe), wanted, events)
    except RautaError as error:
        last_words.setblocking(True)
        with contextlib.suppress(OSError):  # nobody waits for the reason
            last_words.sendall(encode(Failed(str(error))))
        return error.code if isinstance(error, StartError) else EXIT_FAILURE


def _serve(program: Program, wanted: Wanted, events: EventLog) -> int:
    """From what the program wants to its end. Raises RautaError."""
    configuration = unpack(wanted.configuration)
    source = start.Source(configuration=configuration, name=wanted.name, load=program.load)
    return start.run(source, events, program=program)


if __name__ == "__main__":
    sys.exit(main())
