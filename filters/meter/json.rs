//! Shared by the readers of all dialects: reading JSON without an allocation, weighing texts, and plausible
//! counts.

use std::cell::RefCell;

use super::{
    Reading,
    estimate::{self, Estimate},
};
use crate::kernel::json::{JsonKind, ParseError, Reader, Value};

/// An answer that is not JSON: cut off, or a page of HTML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not JSON: {0}")]
pub struct NotJson(#[from] pub ParseError);

/// Integers up to here survive being a double on the way.
const MAX_COUNT: u64 = 1 << 53;

thread_local! {
    /// So that an event costs no allocation.
    static READER: RefCell<Reader> = const { RefCell::new(Reader::lenient()) };
}

pub(super) fn read(
    data: &[u8],
    reading: impl FnOnce(Value<'_>) -> Reading,
) -> Result<Reading, NotJson> {
    READER.with(|reader| match reader.try_borrow_mut() {
        Ok(mut reader) => Ok(reading(reader.parse(data)?)),
        Err(_) => Ok(reading(Reader::lenient().parse(data)?)),
    })
}

/// One event of a stream. Nothing at all is a beat that keeps a connection awake.
pub(super) fn read_event(data: &[u8], reading: impl FnOnce(Value<'_>) -> Reading) -> Reading {
    if data.trim_ascii().is_empty() {
        return Reading::default();
    }
    let malformed = Reading { malformed: true, ..Reading::default() };
    read(data, reading).unwrap_or(malformed)
}

/// Null, or an empty string, array or object: what servers send for an absent value.
pub(super) fn is_empty(value: Value<'_>) -> bool {
    match value.kind() {
        JsonKind::Null => true,
        JsonKind::String => value.span().len() == 2,
        JsonKind::Array => value.items().next().is_none(),
        JsonKind::Object => value.members().next().is_none(),
        JsonKind::Bool | JsonKind::Number => false,
    }
}

/// Text, or parts of text.
pub(super) fn text(value: Value<'_>) -> Estimate {
    match value.as_str() {
        Some(string) => estimate::piece(&string),
        None => value.items().map(|part| member_text(part, "text")).sum(),
    }
}

pub(super) fn member_text(object: Value<'_>, name: &str) -> Estimate {
    object.get(name).map_or(Estimate::default(), text)
}

pub(super) fn count(value: Option<Value<'_>>) -> Option<u64> {
    value?.as_u64().filter(|count| *count <= MAX_COUNT)
}
