"""Every time-out and limit that has a default, in one place, each with the reason for its value.

Durations are seconds, sizes bytes. All are finite: a gateway that waits for ever is a leak.
"""

from __future__ import annotations

from typing import Final

# Time-outs towards backends (service, overridable per route).
CONNECT_TIMEOUT: Final = 5.0  # as Envoy; two lost SYNs (1 s + 2 s) still succeed
RESPONSE_TIMEOUT: Final = 60.0  # until the response head; as nginx proxy_read_timeout
BACKEND_IDLE_TIMEOUT: Final = 60.0  # no byte either way during an exchange; as nginx

# Time-outs towards clients (listener).
HEAD_TIMEOUT: Final = 15.0  # from the first byte of a head to its end; bounds slowloris
KEEP_ALIVE_TIMEOUT: Final = 75.0  # between requests; as nginx keepalive_timeout

# Pooled upstream connections. Below the 5 s of Node.js, the shortest keep-alive that common servers have,
# so that we and not they close the idle connection.
POOL_IDLE_TIMEOUT: Final = 4.0
POOL_MAX_IDLE_PER_BACKEND: Final = 256  # per worker; as `keepalive 256` in tuned nginx files

# Limits on messages.
HEAD_LIMIT: Final = 64 * 1024  # request line and fields together; Envoy 60 KiB, nginx 4 x 8 KiB
MAX_HEADER_FIELDS: Final = 200  # Envoy 100, Apache 100, h11 none
MAX_HOST_LENGTH: Final = 255  # RFC 1035 2.3.4

# Matching.
REGEX_BUDGET: Final = 0.005  # of one request, for all regexes together

# Processes.
DRAIN_TIMEOUT: Final = 30.0  # SIGTERM to the end of the last exchange; the grace period of Kubernetes

# Balancing.
MAX_WEIGHT: Final = 1_000_000  # Envoy and Gateway API bound weights alike
KERNEL_MAX_BACKENDS: Final = 32  # of one service in tiers 1 and 2; more stay in tier 3
