//! What an operator asks for, as a JSON object. Unknown members are refused: a misspelt `tokens` must
//! not pass for none.

use bytes::Bytes;
use gatekeeper_filters::kernel::{
    Credential, LicenseId,
    json::{Document, JsonKind, Value},
};

use super::{ApiError, LicenseCommand};
use crate::{ledger, licenses::revocation::LicenseRef};

/// Characters of a note.
pub(super) const LONGEST_NOTE: usize = 200;
/// Characters of an id.
const LONGEST_ID: usize = 64;
/// Longer than any licence key.
pub(super) const LONGEST_KEY: usize = crate::shops::signed::LONGEST;
/// Maximum messages or tokens of one grant.
const MOST: u64 = 1_000_000_000_000;

#[derive(Debug)]
pub struct LicenseCommandArgs {
    pub subject: LicenseRef,
    pub messages: u64,
    pub tokens: u64,
    pub id: Option<String>,
    pub note: String,
}

impl LicenseCommandArgs {
    /// # Errors
    /// 400 that names the member at fault.
    pub fn read(command: LicenseCommand, body: &[u8]) -> Result<Self, ApiError> {
        let document = parse(body)?;
        let root = document.root();
        check_members(root, command.name(), command.members())?;
        let subject = subject(root)?;
        let note = text(root, "note", LONGEST_NOTE)?.unwrap_or_default();
        check_note(&note, &subject)?;
        Ok(Self {
            subject,
            messages: amount(root, "messages")?,
            tokens: amount(root, "tokens")?,
            id: id(root)?,
            note,
        })
    }
}

pub(super) fn parse(body: &[u8]) -> Result<Document, ApiError> {
    Document::parse(Bytes::copy_from_slice(body))
        .map_err(|error| ApiError::invalid(format!("The body is not JSON: {error}.")))
}

pub(super) fn check_members(object: Value<'_>, of: &str, known: &[&str]) -> Result<(), ApiError> {
    if object.kind() != JsonKind::Object {
        return Err(ApiError::invalid(match of {
            "pairs" => "pairs: expected objects",
            _ => "The body is not a JSON object.",
        }));
    }
    let is_known = |name: &str| known.contains(&name);
    match object.members().all(|(name, _)| is_known(&name.decoded())) {
        true => Ok(()),
        // A key that stands in the wrong place is not repeated.
        false => Err(ApiError::invalid(format!("unknown member; {of} takes {}", known.join(", ")))),
    }
}

fn subject(root: Value<'_>) -> Result<LicenseRef, ApiError> {
    match (text(root, "key", LONGEST_KEY)?, text(root, "license", 64)?) {
        (Some(key), None) if !key.trim().is_empty() => {
            Ok(LicenseRef::Key(Credential::new(key.trim())))
        }
        (None, Some(hex)) => LicenseId::from_hex(&hex)
            .map(LicenseRef::Id)
            .ok_or_else(|| ApiError::invalid("license: expected 64 hex digits")),
        _ => Err(ApiError::invalid("name one licence: its `key`, or its id as `license`")),
    }
}

/// A key has no place in a record that is kept.
fn check_note(note: &str, subject: &LicenseRef) -> Result<(), ApiError> {
    let LicenseRef::Key(key) = subject else { return Ok(()) };
    match note.to_ascii_uppercase().contains(&key.expose().to_ascii_uppercase()) {
        true => Err(ApiError::invalid("note: leave the licence key out of it")),
        false => Ok(()),
    }
}

fn id(root: Value<'_>) -> Result<Option<String>, ApiError> {
    let id = text(root, "id", LONGEST_ID)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match &id {
        Some(text) if text.is_empty() || !text.bytes().all(fits) => {
            let message = format!("id: expected 1 to {LONGEST_ID} of A-Z, a-z, 0-9, _ and -");
            Err(ApiError::invalid(message))
        }
        _ => Ok(id),
    }
}

pub(super) fn text(
    root: Value<'_>,
    name: &str,
    longest: usize,
) -> Result<Option<String>, ApiError> {
    let Some(value) = root.get(name) else { return Ok(None) };
    let Some(text) = value.as_str() else {
        return Err(ApiError::invalid(format!("{name}: expected a string")));
    };
    if text.chars().count() > longest || text.chars().any(char::is_control) {
        let message = format!("{name}: expected at most {longest} characters, none of control");
        return Err(ApiError::invalid(message));
    }
    Ok(Some(text.into_owned()))
}

fn amount(root: Value<'_>, name: &str) -> Result<u64, ApiError> {
    let Some(value) = root.get(name) else { return Ok(0) };
    let number =
        Some(value).filter(|value| value.kind() == JsonKind::Number).and_then(|v| v.as_u64());
    number.filter(|number| *number <= MOST).ok_or_else(|| {
        ApiError::invalid(format!("{name}: expected a whole number from 0 to {MOST}"))
    })
}

impl LicenseCommand {
    fn members(self) -> &'static [&'static str] {
        match self {
            LicenseCommand::Show => &["key", "license"],
            // Many at once, and read elsewhere.
            LicenseCommand::Move => &[],
            LicenseCommand::Do(ledger::OperatorActionKind::Grant) => {
                &["key", "license", "messages", "tokens", "id", "note"]
            }
            _ => &["key", "license", "id", "note"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(command: &str, body: &str) -> Result<LicenseCommandArgs, String> {
        let command = LicenseCommand::parse(command).unwrap();
        LicenseCommandArgs::read(command, body.as_bytes()).map_err(|failure| failure.message)
    }

    #[test]
    fn a_good_order_is_read() {
        let body = r#"{"key":" ab-1 ","messages":100,"tokens":0,"id":"x_1","note":"é"}"#;
        let order = read("grant", body).unwrap();
        let LicenseRef::Key(key) = &order.subject else { panic!() };
        assert_eq!((key.expose(), order.messages, order.tokens), ("ab-1", 100, 0));
        assert_eq!((order.id.as_deref(), &*order.note), (Some("x_1"), "é"));
        let id = format!(r#"{{"license":"{}"}}"#, "0a".repeat(32));
        assert!(matches!(read("show", &id).unwrap().subject, LicenseRef::Id(_)));
    }

    #[test]
    fn a_bad_order_is_told_what_is_wrong_with_it() {
        let long = |name: &str, size| format!(r#"{{"key":"K","{name}":"{}"}}"#, "a".repeat(size));
        let (note, id, key) = (long("note", 201), long("id", 65), "K".repeat(2049));
        let key = format!(r#"{{"key":"{key}"}}"#);
        for (command, body, says) in [
            ("show", "", "not JSON"),
            ("show", "[]", "not a JSON object"),
            ("show", "{}", "name one licence"),
            ("show", r#"{"key":""}"#, "name one licence"),
            ("show", r#"{"key":"K","license":"0"}"#, "name one licence"),
            ("show", r#"{"key":"K","key":"K"}"#, "duplicate key"),
            ("show", r#"{"license":"zz"}"#, "64 hex digits"),
            ("show", r#"{"key":7}"#, "key: expected a string"),
            ("show", r#"{"key":null}"#, "key: expected a string"),
            ("show", &key, "at most 2048 characters"),
            ("show", r#"{"key":"K","note":"x"}"#, "show takes key, license"),
            ("reset", r#"{"key":"K","messages":1}"#, "unknown member"),
            ("grant", r#"{"key":"K","mesages":1}"#, "unknown member"),
            ("grant", r#"{"key":"K","messages":"1"}"#, "messages: expected a whole number"),
            ("grant", r#"{"key":"K","messages":-1}"#, "messages: expected a whole number"),
            ("grant", r#"{"key":"K","tokens":1.5}"#, "tokens: expected a whole number"),
            ("grant", r#"{"key":"K","tokens":1000000000001}"#, "tokens: expected a whole number"),
            ("grant", r#"{"key":"K","id":"a b"}"#, "id: expected 1 to 64"),
            ("grant", r#"{"key":"K","id":""}"#, "id: expected 1 to 64"),
            ("grant", &id, "at most 64 characters"),
            ("grant", &note, "at most 200 characters"),
            ("grant", r#"{"key":"K","note":"a\nb"}"#, "none of control"),
            ("grant", r#"{"key":"Key-1","note":"for key-1"}"#, "leave the licence key out"),
        ] {
            let message = read(command, body).expect_err(body);
            assert!(message.contains(says), "{body}: {message}");
        }
    }
}
