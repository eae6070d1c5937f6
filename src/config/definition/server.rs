//! Listeners: `server`, `admin`.

use super::types::{ADDRESS, COUNT, DURATION, PATH, SIZE, TEXTS};
use crate::config::field_type::{Field, FieldType, TextFormat};

pub const SERVER: &[Field] = &[
    Field::new("listen", &ADDRESS, "IP address and port.").or("127.0.0.1:8080"),
    Field::new(
        "threads",
        &FieldType::Int { min: 1, max: 1024 },
        "Worker threads. Default: one per core.",
    ),
    Field::new("grace", &DURATION, "How long open streams may continue after SIGTERM.").or("300s"),
    Field::new(
        "tls",
        &FieldType::Record(TLS),
        "Serve TLS 1.2 and 1.3. Required off loopback, unless behind_tls.",
    ),
    Field::new(
        "behind_tls",
        &FieldType::Bool,
        "A proxy in front of the gateway terminates TLS for the apps.",
    )
    .or("false"),
    Field::new(
        "trusted_proxies",
        &FieldType::List { of: &FieldType::Text(TextFormat::Network), min: 0 },
        "Networks whose X-Forwarded-For header is trusted.",
    ),
    Field::new("limits", &FieldType::Record(SERVER_LIMITS), "Limits of requests."),
];

const TLS: &[Field] = &[
    Field::new("cert", &PATH, "PEM file: the certificate and its chain.").required(),
    Field::new("key", &PATH, "PEM file: the private key.").required(),
];

const SERVER_LIMITS: &[Field] = &[
    Field::new("body", &SIZE, "Largest request body.").or("10MiB"),
    Field::new(
        "header_timeout",
        &DURATION,
        "From the first byte of a request to the end of its headers; also for a TLS handshake, and for the first \
         frame of HTTP/2.",
    )
    .or("10s"),
    Field::new(
        "buffered",
        &SIZE,
        "Memory that requests and answers hold at one time, all together; a licence and an address may hold a \
         quarter. Default: an eighth of the memory there is, 256MiB at most.",
    ),
    Field::new(
        "requests",
        &COUNT,
        "Requests open at one time; above it 503. Default: what half of the memory carries.",
    ),
    Field::new(
        "connections_per_address",
        &COUNT,
        "Connections of one address (IPv6: of a /64) while less than half of the room is free. Default: a quarter of \
         the room. Loopback and trusted proxies may have any number.",
    ),
];

pub const ADMIN: &[Field] = &[
    Field::new("listen", &ADDRESS, "IP address and port.").or("127.0.0.1:9090"),
    Field::new(
        "token",
        &FieldType::Text(TextFormat::Token),
        "`env:NAME` or `file:PATH`, 16 characters or more. Where it is set, everything except health and the page itself requires it. Required off \
         loopback. `none`: no token; a reload removes a token only if `none` is written.",
    ),
    Field::new(
        "read_token",
        &FieldType::Text(TextFormat::Source),
        "A second token, for GET only: `/metrics`, `/status`, `/feed` and the page. For Prometheus and for \
         read-only users. `env:NAME` or `file:PATH`, 16 characters or more.",
    ),
    Field::new(
        "tls",
        &FieldType::Record(TLS),
        "Serve the admin listener over TLS. Required off loopback, unless behind_tls.",
    ),
    Field::new(
        "behind_tls",
        &FieldType::Bool,
        "TLS ends in front of the admin listener, or its network is private: the token crosses it in clear.",
    )
    .or("false"),
    Field::new(
        "hosts",
        &TEXTS,
        "Host names that requests may carry beside loopback and the listen address; with a port where a \
         proxy serves the page on one of its own.",
    ),
];
