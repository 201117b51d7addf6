"""The file format: secrets, certificates, and TLS towards backends."""

from __future__ import annotations

from typing import Final

from rauta.config.paths import FilePath
from rauta.config.scalars import Boolean, Text
from rauta.config.schema import Field, Object, switched
from rauta.routing import services, settings

SECRET: Final = Object(
    name="secret",
    doc="Where a secret is. The secret itself never stands in the file.",
    fields=(
        Field(key="file", type=FilePath(), doc="A file, relative to this one.", example="tls.key"),
        Field(
            key="env",
            type=Text("the name of an environment variable"),
            doc="An environment variable that holds the secret itself.",
            example="TLS_KEY",
        ),
    ),
    model=settings.Secret,
    one_of=("file", "env"),
    instead="{file: %s}",
)

CERTIFICATE: Final = Object(
    name="certificate",
    doc="A certificate and its private key.",
    fields=(
        Field(
            key="cert",
            type=FilePath(),
            doc="PEM file with the certificate, then its chain; relative to this file.",
            example="tls.crt",
        ),
        Field(key="key", type=SECRET, doc="The private key, PEM, not encrypted.", example="{file: tls.key}"),
    ),
    model=settings.Certificate,
    instead="{cert: %s, key: {file: FILE}}",
)

BACKEND_TLS: Final = Object(
    name="backend tls",
    doc="TLS towards the backends of a service. `{}` verifies them by the CAs of the system.",
    fields=(
        Field(
            key="ca",
            type=FilePath(),
            doc="PEM file with the CAs that sign the backends' certificates; relative to this file.",
            example="backends-ca.pem",
            absent="the CAs of the system",
        ),
        Field(
            key="crl",
            type=FilePath(meant=switched("FILE")),
            doc="PEM file with the lists of what they have revoked (CRL), one of each CA; relative to this file.",
            example="backends.crl",
            absent="whatever was revoked counts",
        ),
        Field(
            key="name",
            type=Text("a host"),
            doc="What their certificates must cover, and what is asked for by SNI.",
            example="users.internal",
            absent="the host of the backend's address",
        ),
        Field(
            key="certificate",
            type=CERTIFICATE,
            doc="Ours, for backends that ask for one.",
            example="{cert: rauta.crt, key: {file: rauta.key}}",
            absent="none",
        ),
        Field(
            key="verify",
            type=Boolean(),
            doc="Whether the backends' certificates are verified. With `false` anybody may be the backend.",
            example="false",
        ),
    ),
    model=services.BackendTls,
    instead="{ca: %s}",
    meant=switched("{}", **{"[]": "{ca: FILE}"}),
    hints={
        "cert": "write certificate: {cert: FILE, key: {file: FILE}}",
        "key": "write certificate: {cert: FILE, key: {file: FILE}}",
        "sni": "write name",
        "server_name": "write name",
        "insecure": "write verify: false",
        "crl_file": "write crl",
    },
)
