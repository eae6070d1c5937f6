//! `filters` and `log`.

use super::types::{ANY_TEXT, NAME};
use crate::config::field_type::{Field, FieldType, TextFormat, Variant};

pub const FILTERS: FieldType = FieldType::List {
    of: &FieldType::Either(&[
        NAME,
        FieldType::Map { key: TextFormat::Name, of: &FieldType::Anything, min: 1 },
    ]),
    min: 1,
};

const LEVEL: FieldType = FieldType::Choice(&[
    Variant::new("off"),
    Variant::new("error"),
    Variant::new("warn"),
    Variant::new("info"),
    Variant::new("debug"),
    Variant::new("trace"),
]);

/// What took the place of the gateway's own rotation of its access log.
const ROTATION: &str =
    "let logrotate move the file and send SIGHUP, as conf/logrotate/gatekeeper does.";

pub const LOG: &[Field] = &[
    Field::new("access", &ANY_TEXT, "One line per request: `stdout`, `off` or `file:PATH`.")
        .or("stdout"),
    Field::removed("access_max_size", ROTATION),
    Field::removed("access_keep", ROTATION),
    Field::new("level", &LEVEL, "Least severe log lines that are written.").or("info"),
    Field::new(
        "levels",
        &FieldType::Map { key: TextFormat::Name, of: &LEVEL, min: 0 },
        "Levels of single parts, like `pool: debug`. Third-party crates, like `pingora`, are capped at info.",
    ),
];
