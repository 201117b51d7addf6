"""What one connection may have and take, on either side; what people may set is in `routing.defaults`."""

from __future__ import annotations

from typing import Final

# Pipelined bytes held while a response is pending. Enough for every honest client; reading pauses beyond it.
HELD_LIMIT: Final = 64 * 1024
# A request body that nobody wants any more (the answer is out already) is read to its end if it is no longer than
# this, so that the connection can be kept; else the connection is closed.
DISCARD_LIMIT: Final = 64 * 1024
# How long and how much is read behind the last that was said, so that a reset does not destroy it (RFC 9112 9.6): 2 s
# bridges a round trip to anywhere; as nginx lingering_timeout, roughly.
LINGER_TIME: Final = 2.0
LINGER_LIMIT: Final = 4 * 1024 * 1024

# While draining, idle connections are kept for that long: a request that its client has sent already arrives within
# a round trip and is answered. Costs this much of a restart, if there are idle connections at all.
DRAIN_GRACE: Final = 0.5

# Requests that are answered at once (some 0.2 ms each) which one connection may have done in a turn of the loop, before
# the others have theirs. Reads bring up to 256 KiB, which would be thousands.
HEADS_PER_TURN: Final = 16

# Interim responses of one request. Real servers send one or two (100, 103); each one delays no time-out.
MAX_INTERIM: Final = 20
