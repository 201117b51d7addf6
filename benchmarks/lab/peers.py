"""The gateways that are compared, each configured for this work as its documentation advises, with two workers.

rauta is there twice: `rauta` with its data plane compiled (docs/compiled.md), `pure` as plain Python.

All route `/` by prefix and `/re/<digits>` by a regular expression to the same backends, and the prefix `/other` to a
service of its own, the same backends at the next port; they keep connections to them, and write no access log. rauta
and Envoy count requests, as they do by default.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Write = Callable[[Path, tuple[str, ...]], list[str]]
"""(directory for files, backends as host:port) -> the command line; the gateway listens on its port, any address."""


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


CHECKOUT: Final = Path(__file__).parents[2]


COMPILED: Final = f"PYTHONPATH={CHECKOUT / 'build' / 'benchmark'}"
"""Of the environment: rauta with its data plane compiled."""


def _compiled(home: Path, backends: tuple[str, ...]) -> list[str]:
    return ["env", COMPILED, *_rauta(home, backends, 8001)]


def _pure(home: Path, backends: tuple[str, ...]) -> list[str]:
    return _rauta(home, backends, 8007)


def _kernel(home: Path, backends: tuple[str, ...]) -> list[str]:
    return ["env", COMPILED, *_rauta(home, backends, 8008, offload="offload: {mode: require}")]


def _rauta(home: Path, backends: tuple[str, ...], port: int, offload: str = "") -> list[str]:
    listed = ", ".join(f'{{address: "{backend}"}}' for backend in backends)
    second = ", ".join(f'{{address: "{backend}"}}' for backend in others(backends))
    (home / "rauta.yaml").write_text(
        f"""version: 1
workers: 2
{offload}
listeners: {{web: {{address: "0.0.0.0:{port}", forwarded: []}}}}
access_log: {{to: "off"}}
services: {{all: {{backends: [{listed}]}}, other: {{backends: [{second}]}}}}
routes:
  - {{name: regex, match: {{path: {{regex: "/re/[0-9]+"}}}}, service: all}}
  - {{name: other, match: {{path: {{prefix: /other}}}}, service: other}}
  - {{name: all, service: all}}
"""
    )
    return [sys.executable, "-P", "-m", "rauta.proxy", "--config", str(home / "rauta.yaml")]


def _nginx(home: Path, backends: tuple[str, ...]) -> list[str]:
    servers = " ".join(f"server {backend};" for backend in backends)
    second = " ".join(f"server {backend};" for backend in others(backends))
    kept = 'proxy_http_version 1.1; proxy_set_header Connection "";'
    forward = f"proxy_pass http://all; {kept}"
    (home / "nginx.conf").write_text(
        f"""worker_processes 2; daemon off; pid {home}/pid; error_log {home}/error.log;
worker_rlimit_nofile 65536; events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 0; tcp_nodelay on;
  client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
  uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
  upstream all {{ {servers} keepalive 256; keepalive_requests 1000000000; }}
  upstream other {{ {second} keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 8002 reuseport backlog=4096;
    location / {{ {forward} }}
    location ~ ^/re/[0-9]+$ {{ {forward} }}
    location /other {{ proxy_pass http://other; {kept} }}
  }}
}}
"""
    )
    return ["nginx", "-c", str(home / "nginx.conf")]


def _haproxy(home: Path, backends: tuple[str, ...]) -> list[str]:
    def servers(backends: tuple[str, ...]) -> str:
        return "\n".join(f"  server s{place} {backend} maxconn 2000" for place, backend in enumerate(backends))

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
  bind :8003
  acl regex path_reg ^/re/[0-9]+$
  acl second path_beg /other
  use_backend all if regex
  use_backend other if second
  default_backend all
backend all
  balance roundrobin
{servers(backends)}
backend other
  balance roundrobin
{servers(others(backends))}
"""
    )
    return ["haproxy", "-db", "-f", str(home / "haproxy.cfg")]


def _envoy(home: Path, backends: tuple[str, ...]) -> list[str]:
    def endpoint(backend: str) -> dict[str, object]:
        host, port = backend.split(":")
        return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}

    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"safe_regex": {"regex": "/re/[0-9]+"}}, "route": {"cluster": "all"}},
                        {"match": {"prefix": "/other"}, "route": {"cluster": "other"}},
                        {"match": {"prefix": "/"}, "route": {"cluster": "all"}},
                    ],
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "web",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 8004}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    clusters = [
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
        for name, members in (("all", backends), ("other", others(backends)))
    ]
    resources = {"static_resources": {"listeners": [listener], "clusters": clusters}}
    (home / "envoy.json").write_text(json.dumps(resources))
    return ["envoy", "-c", str(home / "envoy.json"), "--concurrency", "2", "--log-level", "error", "--base-id", "77"]


def _caddy(home: Path, backends: tuple[str, ...]) -> list[str]:
    transport = "transport http {\n        keepalive_idle_conns_per_host 256\n      }"
    forward = f"reverse_proxy {' '.join(backends)} {{\n      {transport}\n    }}"
    second = f"reverse_proxy {' '.join(others(backends))} {{\n      {transport}\n    }}"
    (home / "Caddyfile").write_text(
        f"""{{
  admin off
  auto_https off
  persist_config off
  log {{
    level ERROR
  }}
}}
:8005 {{
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
"""
    )
    return ["env", "GOMAXPROCS=2", "caddy", "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile"]


def _aiohttp(_home: Path, backends: tuple[str, ...]) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("aiohttp_proxy.py")), "8006", *backends]


PEERS: Final = (
    Peer("rauta", 8001, _compiled),
    Peer("pure", 8007, _pure),
    Peer("nginx", 8002, _nginx),
    Peer("haproxy", 8003, _haproxy),
    Peer("envoy", 8004, _envoy),
    Peer("caddy", 8005, _caddy),
    Peer("aiohttp", 8006, _aiohttp),
)

KERNEL: Final = Peer("kernel", 8008, _kernel, kernel=True)
"""rauta with its kernel tiers."""
