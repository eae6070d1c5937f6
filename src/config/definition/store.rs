//! `vault`, `store`.

use super::types::{DURATION, PATH};
use crate::config::field_type::{Field, FieldType, TextFormat, Variant};

pub const VAULT: &[Field] = &[
    Field::new(
        "kek",
        &FieldType::Text(TextFormat::Source),
        "The key that seals the others: 32 bytes in base64, `file:PATH` or `env:NAME`.",
    )
    .required(),
    Field::new(
        "previous",
        &FieldType::Text(TextFormat::Source),
        "The previous key. Opens secrets until `rewrap` has run.",
    ),
    Field::new(
        "pepper",
        &FieldType::Text(TextFormat::Secret),
        "32 bytes in base64 under which licences are hashed. Default: derived from the KEK. \
         `rewrap` writes it.",
    ),
];

pub const STORE: &[Field] = &[
    Field::new(
        "kind",
        &FieldType::Choice(&[Variant::new("embedded"), Variant::new("redis")]),
        "The kind of store. `redis`: several gateways count together and share what they know.",
    )
    .or("embedded"),
    Field::new("path", &PATH, "Database file of this gateway; its directory is created.")
        .or("data/gatekeeper.db"),
    Field::new("keep", &DURATION, "How long records of requests are kept.").or("90d"),
    Field::new(
        "url",
        &FieldType::Text(TextFormat::RedisUrl),
        "URL of Redis or Valkey: `redis://HOST:PORT/DB`, `rediss://...` with TLS, \
         `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE`, `redis+cluster://HOST:PORT,HOST:PORT`. With \
         a password `env:NAME` or `file:PATH` that holds the whole URL.",
    )
    .with("kind", "redis"),
    Field::new(
        "on_store_down",
        &FieldType::Choice(&[Variant::new("lease"), Variant::new("closed")]),
        "While Redis is unavailable: `lease` lets a recently seen licence spend 2 % of its limits, once per \
         period and gateway, for 60 s; `closed` refuses at once.",
    )
    .or("lease")
    .with("kind", "redis"),
    Field::new(
        "unsafe_eviction",
        &FieldType::Bool,
        "Accepts a Redis that may evict keys or does not persist to disk.",
    )
    .or("false")
    .with("kind", "redis"),
];
