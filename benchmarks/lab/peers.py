"""The gateways that are compared, each configured for this work as its documentation advises, with two workers.

rauta is there twice: `rauta` with its data plane compiled (docs/compiled.md), `pure` as plain Python.

All route `/` by prefix and `/re/<digits>` by a regular expression to the same backends, and the prefix `/other` to a
service of its own, the same backends at the next port; they keep connections to them, and write no access log. rauta
and Envoy count requests, as they do by default.

With `Doors` they also listen for TLS (HTTP/2 and HTTP/1.1 by ALPN), 100 ports above, and for HTTP/2 without TLS ("prior
knowledge"), 200 above, and send `/bench.Echo` to backends of gRPC.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TLS: Final = 100  # ports above that for plain HTTP/1.1
PRIOR_KNOWLEDGE: Final = 200
GRPC_PREFIX: Final = "/bench.Echo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """More ways in: a PEM file each of certificate and key, and backends (host:port) that speak HTTP/2 without TLS, for
    gRPC; without them there is no such route."""

    certificate: Path
    key: Path
    grpc: tuple[str, ...] = ()


Write = Callable[[Path, tuple[str, ...], Doors | None], list[str]]
"""(directory for files, backends as host:port, more ways in) -> the command line; the gateway listens on its port, any
address."""


def others(backends: tuple[str, ...]) -> tuple[str, ...]:
    """The backends of the second service: the same hosts at the next port."""
    return tuple(f"{host}:{int(port) + 1}" for host, port in (backend.split(":") for backend in backends))


@dataclass(frozen=True, slots=True)
class Peer:
    """A gateway: its name, its port, and what writes its configuration."""

    name: str
    port: int
    write: Write
    kernel: bool = False  # runs where the kernel tiers do, and its backends have other addresses
    plain: bool = True  # listens on its port itself, not only on the doors above


CHECKOUT: Final = Path(__file__).parents[2]


COMPILED: Final = f"PYTHONPATH={CHECKOUT / 'build' / 'benchmark'}"
"""Of the environment: rauta with its data plane compiled."""


def _compiled(home: Path, backends: tuple[str, ...], doors: Doors | None) -> list[str]:
    return ["env", COMPILED, *_rauta(home, backends, doors, 8001)]


def _pure(home: Path, backends: tuple[str, ...], doors: Doors | None) -> list[str]:
    return _rauta(home, backends, doors, 8007)


def _plain_h2(home: Path, backends: tuple[str, ...], doors: Doors | None) -> list[str]:
    return ["env", COMPILED, "RAUTA_HTTP2=h2", *_rauta(home, backends, doors, 8011)]


def _kernel(home: Path, backends: tuple[str, ...], doors: Doors | None) -> list[str]:
    return ["env", COMPILED, *_rauta(home, backends, doors, 8008, offload="offload: {mode: require}")]


def _rauta(home: Path, backends: tuple[str, ...], doors: Doors | None, port: int, offload: str = "") -> list[str]:
    def listed(backends: tuple[str, ...]) -> str:
        return ", ".join(f'{{address: "{backend}"}}' for backend in backends)

    listeners, services, routes = "", "", ""
    if doors is not None:
        certificate = f'{{cert: "{doors.certificate}", key: {{file: "{doors.key}"}}}}'
        listeners = f"""
  tls: {{address: "0.0.0.0:{port + TLS}", forwarded: [], tls: {{certificates: [{certificate}]}}}}
  h2c: {{address: "0.0.0.0:{port + PRIOR_KNOWLEDGE}", forwarded: []}}"""
    if doors is not None and doors.grpc:
        services = f"\n  grpc: {{protocol: http2, backends: [{listed(doors.grpc)}]}}"
        routes = f"\n  - {{name: grpc, match: {{path: {{prefix: {GRPC_PREFIX}}}}}, service: grpc}}"
    (home / "rauta.yaml").write_text(
        f"""version: 1
workers: 2
{offload}
listeners:
  web: {{address: "0.0.0.0:{port}", forwarded: []}}{listeners}
access_log: {{to: "off"}}
services:
  all: {{backends: [{listed(backends)}]}}
  other: {{backends: [{listed(others(backends))}]}}{services}
routes:{routes}
  - {{name: regex, match: {{path: {{regex: "/re/[0-9]+"}}}}, service: all}}
  - {{name: other, match: {{path: {{prefix: /other}}}}, service: other}}
  - {{name: all, service: all}}
"""
    )
    return [sys.executable, "-P", "-m", "rauta.proxy", "--config", str(home / "rauta.yaml")]


def _nginx(home: Path, backends: tuple[str, ...], doors: Doors | None) -> list[str]:
    def upstream(name: str, backends: tuple[str, ...]) -> str:
        servers = " ".join(f"server {backend};" for backend in backends)
        return f"upstream {name} {{ {servers} keepalive 256; keepalive_requests 1000000000; }}"

    more, groups = "", ""
    if doors is not None:
        # 1.22 speaks TLS 1.2 and older unless told. What a client does not take yet is not written to a disk.
        more = f"""
    listen {8002 + TLS} ssl http2 reuseport backlog=4096; listen {8002 + PRIOR_KNOWLEDGE} http2 reuseport backlog=4096;
    ssl_certificate {doors.certificate}; ssl_certificate_key {doors.key}; ssl_protocols TLSv1.2 TLSv1.3;
    proxy_max_temp_file_size 0;"""
    if doors is not None and doors.grpc:
        groups = upstream("grpc", doors.grpc)
        more += f"\n    location {GRPC_PREFIX} {{ grpc_pass grpc://grpc; }}"
    kept = 'proxy_http_version 1.1; proxy_set_header Connection "";'
    forward = f"proxy_pass http://all; {kept}"
    (home / "nginx.conf").write_text(
        f"""worker_processes 2; daemon off; pid {home}/pid; error_log {home}/error.log;
worker_rlimit_nofile 65536; events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 0; tcp_nodelay on;
  client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
  uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
  {upstream("all", backends)}
  {upstream("other", others(backends))}
  {groups}
  server {{
    listen 8002 reuseport backlog=4096;{more}
    location / {{ {forward} }}
    location ~ ^/re/[0-9]+$ {{ {forward} }}
    location /other {{ proxy_pass http://other; {kept} }}
  }}
}}
"""
    )
    return ["nginx", "-c", str(home / "nginx.conf")]


def _haproxy(home: Path, backends: tuple[str, ...], doors: Doors | None) -> list[str]:
    def servers(backends: tuple[str, ...], how: str = "") -> str:
        return "\n".join(f"  server s{place} {backend} maxconn 2000{how}" for place, backend in enumerate(backends))

    binds, rules, group = "", "", ""
    if doors is not None:
        both = home / "both.pem"
        both.write_text(doors.certificate.read_text() + doors.key.read_text())
        binds = f"""
  bind :{8003 + TLS} ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.2
  bind :{8003 + PRIOR_KNOWLEDGE} proto h2"""
    if doors is not None and doors.grpc:
        rules = f"\n  acl grpc path_beg {GRPC_PREFIX}\n  use_backend grpc if grpc"
        group = f"backend grpc\n  balance roundrobin\n{servers(doors.grpc, ' proto h2')}\n"
    (home / "haproxy.cfg").write_text(
        f"""global
  nbthread 2
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  http-reuse always
frontend web
  bind :8003{binds}
  acl regex path_reg ^/re/[0-9]+$
  acl second path_beg /other{rules}
  use_backend all if regex
  use_backend other if second
  default_backend all
backend all
  balance roundrobin
{servers(backends)}
backend other
  balance roundrobin
{servers(others(backends))}
{group}"""
    )
    return ["haproxy", "-db", "-f", str(home / "haproxy.cfg")]


def _envoy(home: Path, backends: tuple[str, ...], doors: Doors | None) -> list[str]:
    def endpoint(backend: str) -> dict[str, object]:
        host, port = backend.split(":")
        return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}

    types = "type.googleapis.com/envoy.extensions.filters"
    grpc = () if doors is None else doors.grpc
    routes: list[dict[str, object]] = [
        {"match": {"safe_regex": {"regex": "/re/[0-9]+"}}, "route": {"cluster": "all"}},
        {"match": {"prefix": "/other"}, "route": {"cluster": "other"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "all"}},
    ]
    if grpc:
        routes.insert(0, {"match": {"prefix": GRPC_PREFIX}, "route": {"cluster": "grpc"}})
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": routes,
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}},
        ],
    }

    def listener(name: str, port: int, **chain: object) -> dict[str, object]:
        return {
            "name": name,
            "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}], **chain}],
        }

    listeners = [listener("web", 8004)]
    if doors is not None:
        listeners.append(listener("tls", 8004 + TLS, transport_socket=_envoy_tls(doors)))
        listeners.append(listener("h2c", 8004 + PRIOR_KNOWLEDGE))
    clusters: list[dict[str, object]] = [
        {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "5s",
            "lb_policy": "ROUND_ROBIN",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [endpoint(backend) for backend in members]}],
            },
        }
        for name, members in (("all", backends), ("other", others(backends)), ("grpc", grpc))
        if members
    ]
    if grpc:
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
        clusters[-1]["typed_extension_protocol_options"] = {options: http2}
    resources = {"static_resources": {"listeners": listeners, "clusters": clusters}}
    (home / "envoy.json").write_text(json.dumps(resources))
    return ["envoy", "-c", str(home / "envoy.json"), "--concurrency", "2", "--log-level", "error", "--base-id", "77"]


def _envoy_tls(doors: Doors) -> dict[str, object]:
    """A transport socket with the certificate."""
    certificate = {
        "certificate_chain": {"filename": str(doors.certificate)},
        "private_key": {"filename": str(doors.key)},
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate]},
        },
    }


def _caddy(home: Path, backends: tuple[str, ...], doors: Doors | None) -> list[str]:
    transport = "transport http {\n        keepalive_idle_conns_per_host 256\n      }"
    forward = f"reverse_proxy {' '.join(backends)} {{\n      {transport}\n    }}"
    second = f"reverse_proxy {' '.join(others(backends))} {{\n      {transport}\n    }}"
    options, grpc, sites = "", "", ""
    if doors is not None:
        options = "\n  default_sni bench.test\n  servers {\n    protocols h1 h2 h2c\n  }"
        sites = f"""
:{8005 + TLS} {{
  tls {doors.certificate} {doors.key}
  import routes
}}
http://:{8005 + PRIOR_KNOWLEDGE} {{
  import routes
}}"""
    if doors is not None and doors.grpc:
        to = " ".join(f"h2c://{backend}" for backend in doors.grpc)
        grpc = f"\n  handle {GRPC_PREFIX}/* {{\n    reverse_proxy {to}\n  }}"
    (home / "Caddyfile").write_text(
        f"""{{
  admin off
  auto_https off
  persist_config off
  log {{
    level ERROR
  }}{options}
}}
(routes) {{{grpc}
  @regex path_regexp ^/re/[0-9]+$
  handle @regex {{
    {forward}
  }}
  handle /other* {{
    {second}
  }}
  handle {{
    {forward}
  }}
}}
:8005 {{
  import routes
}}{sites}
"""
    )
    return ["env", "GOMAXPROCS=2", "caddy", "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile"]


def _aiohttp(_home: Path, backends: tuple[str, ...], _doors: Doors | None) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("aiohttp_proxy.py")), "8006", *backends]


def _hypercorn(home: Path, backends: tuple[str, ...], doors: Doors | None) -> list[str]:
    if doors is None:
        raise ValueError("hypercorn is measured by its ways in for HTTP/2 alone")
    (home / "hypercorn.toml").write_text(
        f"""bind = "0.0.0.0:{8010 + TLS}"
insecure_bind = "0.0.0.0:{8010 + PRIOR_KNOWLEDGE}"
certfile = "{doors.certificate}"
keyfile = "{doors.key}"
workers = 2
worker_class = "uvloop"
backlog = 4096
keep_alive_max_requests = 1000000000
loglevel = "ERROR"
"""
    )
    found = [f"PYTHONPATH={Path(__file__).parents[1]}", f"BACKENDS={' '.join(backends)}"]
    command = [sys.executable, "-m", "hypercorn", "-c", str(home / "hypercorn.toml")]
    return ["env", *found, *command, "lab.hypercorn_proxy:application"]


PEERS: Final = (
    Peer("rauta", 8001, _compiled),
    Peer("pure", 8007, _pure),
    Peer("nginx", 8002, _nginx),
    Peer("haproxy", 8003, _haproxy),
    Peer("envoy", 8004, _envoy),
    Peer("caddy", 8005, _caddy),
    Peer("aiohttp", 8006, _aiohttp),
)

# rauta with its data plane compiled, and HTTP/2 by h2 in plain Python as without the extra `http2-fast`.
PLAIN_H2: Final = Peer("rauta-h2", 8011, _plain_h2)
HYPERCORN: Final = Peer("hypercorn", 8010, _hypercorn, plain=False)
"""What a Python user would write today who wants HTTP/2: hypercorn in front, aiohttp's client behind."""

KERNEL: Final = Peer("kernel", 8008, _kernel, kernel=True)
"""rauta with its kernel tiers."""
