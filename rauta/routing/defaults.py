"""Every time-out and limit that has a default, in one place, each with the reason for its value.

Durations are seconds, sizes bytes. All are finite: a gateway that waits for ever is a leak.
"""

from __future__ import annotations

from typing import Final

# Time-outs towards backends (service, overridable per route).
CONNECT_TIMEOUT: Final = 5.0  # as Envoy; two lost SYNs (1 s + 2 s) still succeed
RESPONSE_TIMEOUT: Final = 60.0  # until the response head; as nginx proxy_read_timeout
BACKEND_IDLE_TIMEOUT: Final = 60.0  # no byte either way during an exchange; as nginx
REQUEST_TIMEOUT: Final = 86400.0  # the whole exchange: long downloads are honest, and nothing may stay for ever

# Time-outs towards clients (listener).
HEAD_TIMEOUT: Final = 15.0  # from the first byte of a head to its end; bounds slowloris
KEEP_ALIVE_TIMEOUT: Final = 75.0  # between requests; as nginx keepalive_timeout

# Pooled upstream connections. Below the 5 s of Node.js, the shortest keep-alive that common servers have,
# so that we and not they close the idle connection.
POOL_IDLE_TIMEOUT: Final = 4.0
POOL_SHARED_IDLE_TIMEOUT: Final = 60.0  # HTTP/2: who closes first says which requests were not taken, so none is lost
POOL_MAX_IDLE_PER_BACKEND: Final = 256  # per worker; as `keepalive 256` in tuned nginx files
BACKEND_CONNECTIONS: Final = 1024  # per worker and backend; as Envoy's circuit breaker
BACKEND_WAITING: Final = 1024  # requests that wait for one of them; as Envoy
CONNECT_ATTEMPTS: Final = 3  # backends that a request is offered to, while none has accepted a connection; as HAProxy
REPLAY_LIMIT: Final = 64 * 1024  # of a request's body, kept so that a reused connection that was closed costs nothing

# Names of backends. The C library does not tell how long an answer holds; Envoy asks every 5 s.
DNS_INTERVAL: Final = 10.0
DNS_TIMEOUT: Final = 5.0  # one try of the C library's resolver

# Active health checks; HAProxy checks every 2 s, Envoy as configured, Traefik every 30 s.
HEALTH_INTERVAL: Final = 5.0
HEALTH_TIMEOUT: Final = 2.0

# Limits on messages.
HEAD_LIMIT: Final = 64 * 1024  # request line and fields together; Envoy 60 KiB, nginx 4 x 8 KiB
BODY_LIMIT: Final = 1 << 40  # 1 TiB: bodies are streamed, so their length costs no memory
MAX_HEADER_FIELDS: Final = 200  # Envoy 100, Apache 100, h11 none
MAX_HOST_LENGTH: Final = 255  # RFC 1035 2.3.4

# Matching.
REGEX_BUDGET: Final = 0.005  # of one request, for all regexes together

# Processes.
DRAIN_TIMEOUT: Final = 25.0  # SIGTERM to the end of the last exchange; Kubernetes kills after 30 s
DRAIN_IDLE: Final = 5.0  # for idle connections: a client in use sends its next request within that, and is told
DRAIN_DELAY: Final = 0.0  # from the failing of /readyz to the refusal of connections; nobody asks by default
CLIENT_CONNECTIONS: Final = 32768  # per worker and listener; some 500 MB
HANG_TIMEOUT: Final = 30.0  # a worker whose loop has not turned for so long is replaced

ADMIN_SOCKET: Final = "/run/rauta/admin.sock"  # systemd makes the directory (RuntimeDirectory=)

# Balancing.
MAX_WEIGHT: Final = 1_000_000  # Envoy and Gateway API bound weights alike
KERNEL_MAX_BACKENDS: Final = 32  # of one service in tiers 1 and 2; more stay in tier 3
