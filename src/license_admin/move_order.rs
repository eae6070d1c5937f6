//! What an operator moves, as a JSON object: pairs of an old key and a new one, or the new shop's id of the licence.

use gatekeeper_filters::kernel::{
    Credential, UnixMs,
    json::{JsonKind, Value},
};

use super::{
    ApiError,
    command::{LONGEST_KEY, LONGEST_NOTE, check_members, parse, text},
};
use crate::shops::{self, license::moment, signed};

const MEMBERS: &[&str] = &["pairs", "dry_run", "accept_until", "say", "note"];
/// Characters of the sentence for buyers.
pub const LONGEST_SENTENCE: usize = 200;

#[derive(Debug)]
pub struct MoveOrder {
    pub pairs: Vec<MovePair>,
    /// Nothing is changed.
    pub dry_run: bool,
    /// Until when the old keys are accepted.
    pub accept_until: Option<UnixMs>,
    /// The message for buyers who use an old key after that.
    pub say: Option<String>,
    pub note: String,
}

#[derive(Debug)]
pub struct MovePair {
    pub old: Credential,
    pub new: NewName,
}

/// What a licence is called from now on.
#[derive(Debug)]
pub enum NewName {
    Key(Credential),
    /// `polar:ID`: a source, and the id it has for the licence.
    Id {
        source: &'static str,
        id: String,
    },
}

impl NewName {
    pub fn read(text: &str) -> Self {
        let text = text.trim();
        let source = |name: &str| match name {
            signed::NAME => Some(signed::NAME),
            name => shops::by_name(name).map(shops::Shop::name),
        };
        let named = text.split_once(':').and_then(|(name, id)| Some((source(name)?, id)));
        match named {
            Some((source, id)) if !id.is_empty() => NewName::Id { source, id: id.to_owned() },
            _ => NewName::Key(Credential::new(text)),
        }
    }
}

impl MoveOrder {
    /// # Errors
    /// 400 that names the member at fault.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let document = parse(body)?;
        let root = document.root();
        check_members(root, "move", MEMBERS)?;
        let pairs = root.get("pairs").filter(|pairs| pairs.kind() == JsonKind::Array);
        let pairs = pairs.ok_or_else(|| ApiError::invalid("move needs `pairs`, an array"))?;
        let accept_until = match text(root, "accept_until", 40)? {
            None => None,
            Some(text) => Some(moment(&text).ok_or_else(|| {
                ApiError::invalid("accept_until: expected a moment like 2027-04-30T00:00:00Z")
            })?),
        };
        let dry_run = match root.get("dry_run") {
            None => false,
            Some(value) => value
                .as_bool()
                .ok_or_else(|| ApiError::invalid("dry_run: expected true or false"))?,
        };
        Ok(Self {
            pairs: pairs.items().map(pair).collect::<Result<_, _>>()?,
            dry_run,
            accept_until,
            say: text(root, "say", LONGEST_SENTENCE)?.filter(|say| !say.trim().is_empty()),
            note: text(root, "note", LONGEST_NOTE)?.unwrap_or_default(),
        })
    }
}

fn pair(value: Value<'_>) -> Result<MovePair, ApiError> {
    check_members(value, "pairs", &["old", "new"])?;
    let of = |name: &str| {
        let found = text(value, name, LONGEST_KEY)?.filter(|text| !text.trim().is_empty());
        found.ok_or_else(|| ApiError::invalid("pairs: each needs `old` and `new`"))
    };
    Ok(MovePair { old: Credential::new(of("old")?.trim()), new: NewName::read(&of("new")?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<MoveOrder, String> {
        MoveOrder::read(body.as_bytes()).map_err(|failure| failure.message)
    }

    #[test]
    fn a_good_order_is_read() {
        let body = r#"{"pairs":[{"old":" a ","new":"b"},{"old":"c","new":"polar:lk-1"}],
            "dry_run":true,"accept_until":"2027-04-30T00:00:00Z","say":"x","note":"y"}"#;
        let order = read(body).unwrap();
        assert_eq!((order.pairs[0].old.expose(), order.dry_run), ("a", true));
        assert!(matches!(&order.pairs[0].new, NewName::Key(key) if key.expose() == "b"));
        assert!(matches!(&order.pairs[1].new, NewName::Id { source: "polar", id } if id == "lk-1"));
        assert_eq!(order.accept_until, Some(UnixMs(1_809_043_200_000)));
    }

    #[test]
    fn a_bad_order_is_told_what_is_wrong_with_it_without_its_keys() {
        for (body, says) in [
            ("{}", "needs `pairs`"),
            (r#"{"pairs":{}}"#, "needs `pairs`"),
            (r#"{"pairs":["SECRET-KEY"]}"#, "expected objects"),
            (r#"{"pairs":[{"old":"SECRET-KEY"}]}"#, "`old` and `new`"),
            (r#"{"pairs":[{"old":"a","new":""}]}"#, "`old` and `new`"),
            (r#"{"pairs":[{"old":"a","new":"b","SECRET-KEY":1}]}"#, "pairs takes old, new"),
            (r#"{"pairs":[],"dry_run":1}"#, "dry_run"),
            (r#"{"pairs":[],"accept_until":"soon"}"#, "accept_until"),
            (r#"{"pairs":[],"to":"polar"}"#, "move takes pairs"),
        ] {
            let message = read(body).unwrap_err();
            assert!(message.contains(says) && !message.contains("SECRET-KEY"), "{body}: {message}");
        }
    }
}
