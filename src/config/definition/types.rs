//! Field types that several sections use.

use crate::config::field_type::{FieldType, TextFormat};

pub const DURATION: FieldType = FieldType::Text(TextFormat::Duration);
pub const SIZE: FieldType = FieldType::Text(TextFormat::Size);
pub const LIMIT: FieldType = FieldType::Text(TextFormat::Limit);
pub const NAME: FieldType = FieldType::Text(TextFormat::Name);
pub const PATH: FieldType = FieldType::Text(TextFormat::Path);
pub const LINK: FieldType = FieldType::Text(TextFormat::Link);
pub const ADDRESS: FieldType = FieldType::Text(TextFormat::Address);
pub const TARGET: FieldType = FieldType::Text(TextFormat::Target);
pub const ANY_TEXT: FieldType = FieldType::Text(TextFormat::Any);
pub const COUNT: FieldType = FieldType::Int { min: 1, max: i64::MAX as u64 };
pub const TEXTS: FieldType = FieldType::List { of: &ANY_TEXT, min: 0 };
