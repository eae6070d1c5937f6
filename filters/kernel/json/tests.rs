use proptest::{collection::vec, prelude::*};
use serde_json::Value as Theirs;

use super::*;

fn parse(text: impl AsRef<[u8]>) -> Result<Document, ParseError> {
    Document::parse(Bytes::copy_from_slice(text.as_ref()))
}

fn why(text: impl AsRef<[u8]>) -> (ParseErrorKind, usize) {
    let invalid = parse(text).unwrap_err();
    (invalid.why, invalid.offset)
}

#[test]
fn what_is_refused_and_where() {
    assert_eq!(why(""), (ParseErrorKind::Empty, 0));
    assert_eq!(why(" \n"), (ParseErrorKind::Empty, 2));
    assert_eq!(why("\u{feff}{}"), (ParseErrorKind::ByteOrderMark, 0));
    assert_eq!(why("{} {}"), (ParseErrorKind::TrailingBytes, 3));
    assert_eq!(why("{} \u{0}"), (ParseErrorKind::TrailingBytes, 3));
    assert_eq!(why("[1,]"), (ParseErrorKind::Unexpected, 3));
    assert_eq!(why("{\"a\":1,}"), (ParseErrorKind::Unexpected, 7));
    assert_eq!(why("{a:1}"), (ParseErrorKind::Unexpected, 1));
    assert_eq!(why("{\"a\" 1}"), (ParseErrorKind::Unexpected, 5));
    assert_eq!(why("{\"a\":"), (ParseErrorKind::EndsEarly, 5));
    assert_eq!(why("[1,2"), (ParseErrorKind::EndsEarly, 4));
    assert_eq!(why("[1 2]"), (ParseErrorKind::Unexpected, 3));
    assert_eq!(why("nul"), (ParseErrorKind::EndsEarly, 3));
    assert_eq!(why("nulL"), (ParseErrorKind::Unexpected, 3));
    assert_eq!(why("NaN"), (ParseErrorKind::Unexpected, 0));
    assert_eq!(why("+1"), (ParseErrorKind::Unexpected, 0));
    assert_eq!(why("01"), (ParseErrorKind::Number, 1));
    assert_eq!(why("[-01]"), (ParseErrorKind::Number, 3));
    assert_eq!(why("1."), (ParseErrorKind::EndsEarly, 2));
    assert_eq!(why("[1.e3]"), (ParseErrorKind::Number, 3));
    assert_eq!(why("[1e]"), (ParseErrorKind::Number, 3));
    assert_eq!(why("[-]"), (ParseErrorKind::Number, 2));
    assert_eq!(why("-Infinity"), (ParseErrorKind::Number, 1));
    assert_eq!(why("\"a\nb\""), (ParseErrorKind::ControlCharacter, 2));
    assert_eq!(why("\"\\x\""), (ParseErrorKind::Escape, 1));
    assert_eq!(why("\"\\u12G4\""), (ParseErrorKind::Escape, 1));
    assert_eq!(why("\"\\ud83d\""), (ParseErrorKind::LoneSurrogate, 1));
    assert_eq!(why("\"\\ude00\\ud83d\""), (ParseErrorKind::LoneSurrogate, 1));
    assert_eq!(why("\"\\ud83d\\u0041\""), (ParseErrorKind::LoneSurrogate, 1));
    assert_eq!(why(b"\"abc\xff\""), (ParseErrorKind::Utf8, 4));
    assert_eq!(why(b"\"\xed\xa0\x80\""), (ParseErrorKind::Utf8, 1));
    assert_eq!(why(b"{\"\xc0\xaf\":1}"), (ParseErrorKind::Utf8, 2));
    assert_eq!(why("\"abc"), (ParseErrorKind::EndsEarly, 4));
    assert_eq!(why("\"abc\\"), (ParseErrorKind::EndsEarly, 5));
    assert_eq!(why("[1}"), (ParseErrorKind::Unexpected, 2));
    assert_eq!(why("// note\n1"), (ParseErrorKind::Unexpected, 0));
}

#[test]
fn the_sentence_is_for_people() {
    let invalid = parse(r#"{"model":"fast","model":"strong"}"#).unwrap_err();
    assert_eq!(invalid.to_string(), "duplicate key at byte 16");
}

#[test]
fn duplicates_are_found_however_they_are_written() {
    assert_eq!(why(r#"{"a":1,"\u0061":2}"#), (ParseErrorKind::DuplicateKey, 7));
    assert_eq!(why(r#"{"\u00e9":1,"é":2}"#), (ParseErrorKind::DuplicateKey, 12));
    assert_eq!(why(r#"{"\ud83d\ude00":1,"😀":2}"#), (ParseErrorKind::DuplicateKey, 18));
    assert_eq!(why(r#"{"a\/b":1,"a/b":2}"#), (ParseErrorKind::DuplicateKey, 10));
    assert_eq!(why(r#"[{"x":[{"":1,"":1}]}]"#), (ParseErrorKind::DuplicateKey, 13));
    assert!(parse(r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#).is_ok());
    assert!(parse(r#"{"a":1,"A":1,"a ":1,"":1}"#).is_ok());
}

#[test]
fn depth_is_bounded() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(nested(MAX_DEPTH)).is_ok());
    assert_eq!(why(nested(MAX_DEPTH + 1)), (ParseErrorKind::TooDeep, MAX_DEPTH));
    assert_eq!(why("[".repeat(1_000_000)), (ParseErrorKind::TooDeep, MAX_DEPTH));
    assert_eq!(why("{\"a\":".repeat(1_000_000)).0, ParseErrorKind::TooDeep);
}

#[test]
fn the_number_of_values_is_bounded_but_not_that_of_numbers() {
    let many = |item: &str, count| format!("[{}]", vec![item; count].join(","));
    assert!(parse(many("[]", MAX_NODES - 1)).is_ok());
    assert_eq!(why(many("[]", MAX_NODES)).0, ParseErrorKind::TooManyValues);
    let numbers = parse(many("15496", 2_000_000)).unwrap();
    assert_eq!(numbers.nodes.len(), 1);
    assert_eq!(numbers.root().items().count(), 2_000_000);
    assert_eq!(std::mem::size_of::<Node>(), 12);
}

#[test]
fn large_objects_are_not_compared_pair_by_pair() {
    let mut text: String = (0..200_000).map(|at| format!("\"common prefix {at}\":0,")).collect();
    text.insert(0, '{');
    let begun = std::time::Instant::now();
    assert_eq!(
        why(format!("{text}\"common prefix 77\":0}}")),
        (ParseErrorKind::DuplicateKey, text.len())
    );
    let escaped = format!("{text}\"\\u0063ommon prefix 99999\":0}}");
    assert_eq!(why(escaped), (ParseErrorKind::DuplicateKey, text.len()));
    assert!(parse(format!("{text}\"last\":0}}")).is_ok());
    assert!(begun.elapsed().as_secs() < 5);
}

#[test]
fn navigation() {
    let text = br#" { "model" : "fa\u0073t", "n": 12, "x": -1.5e1, "list": [1, 2.0 ,3], "on": true,
        "none": null, "m\u0069x": [1, "a", {}] } "#;
    let document = parse(text).unwrap();
    let root = document.root();
    assert_eq!(root.kind(), JsonKind::Object);
    assert_eq!(root.span(), 1..text.len() - 1);
    assert_eq!(root.get("model").unwrap().as_str().unwrap(), "fast");
    assert_eq!(root.get("model").unwrap().raw(), br#""fa\u0073t""#);
    assert_eq!(root.get("n").unwrap().as_u64(), Some(12));
    assert_eq!(root.get("x").unwrap().as_u64(), None);
    assert_eq!(root.get("x").unwrap().as_f64(), Some(-15.0));
    assert_eq!(root.get("on").unwrap().as_bool(), Some(true));
    assert!(root.get("none").unwrap().is_null());
    assert!(root.get("absent").is_none());
    let list: Vec<_> = root.get("list").unwrap().items().map(|item| item.raw()).collect();
    assert_eq!(list, [&b"1"[..], b"2.0", b"3"]);
    assert_eq!(root.get("mix").unwrap().items().count(), 3);
    let (name, value) = root.members().nth(6).unwrap();
    assert!(name == "mix" && name.is_escaped());
    assert_eq!(name.decoded(), "mix");
    assert_eq!(&text[name.raw_span()], br"m\u0069x");
    assert_eq!(&text[value.span()], br#"[1, "a", {}]"#);
    assert_eq!(root.items().count() + value.members().count(), 0);
}

#[test]
fn a_lenient_reader_takes_what_json_parse_takes() {
    let mut reader = Reader::lenient();
    let root = reader.parse(br#"{"a":1,"b":"x\ud83d!","a":2}"#).unwrap();
    assert_eq!(root.get("a").unwrap().as_u64(), Some(2));
    assert_eq!(root.get("b").unwrap().as_str().unwrap(), "x\u{fffd}!");
    assert_eq!(reader.parse(b"\"\xff\"").unwrap().as_str().unwrap(), "\u{fffd}");
    assert!(reader.parse(b"{\"a\":1").is_err());
    assert!(Reader::strict().parse(br#"{"a":1,"a":2}"#).is_err());
}

/// Our tree as theirs, by navigation only.
fn tree(value: Value<'_>) -> Theirs {
    match value.kind() {
        JsonKind::Null => Theirs::Null,
        JsonKind::Bool => Theirs::Bool(value.as_bool().unwrap()),
        JsonKind::Number => serde_json::from_slice(value.raw()).unwrap_or_default(),
        JsonKind::String => Theirs::String(value.as_str().unwrap().into_owned()),
        JsonKind::Array => value.items().map(tree).collect(),
        JsonKind::Object => value
            .members()
            .map(|(name, member)| {
                assert!(value.get(&name.decoded()).unwrap().span() == member.span());
                (name.decoded().into_owned(), tree(member))
            })
            .collect(),
    }
}

fn json() -> impl Strategy<Value = Theirs> {
    let leaf = prop_oneof![
        Just(Theirs::Null),
        any::<bool>().prop_map(Theirs::from),
        any::<i64>().prop_map(Theirs::from),
        any::<f64>().prop_map(Theirs::from),
        ".{0,20}".prop_map(Theirs::from),
        "[\\\\\"\u{0}-\u{20}a-c]{0,40}".prop_map(Theirs::from),
    ];
    leaf.prop_recursive(6, 80, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Theirs::from),
            vec(any::<i32>(), 0..8).prop_map(Theirs::from),
            prop::collection::btree_map(".{0,4}", inner, 0..24)
                .prop_map(|map| Theirs::Object(map.into_iter().collect())),
        ]
    })
}

/// The same text with every string written in escapes.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    let mut units = [0; 2];
    for character in text.chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

/// Adds to the object at some depth a second member whose name is that of its first.
fn doubled(value: &mut Theirs, depth: usize) -> Option<(String, String)> {
    match value {
        Theirs::Array(items) => items.iter_mut().find_map(|item| doubled(item, depth)),
        Theirs::Object(map) => {
            if depth > 0
                && let Some(found) = map.values_mut().find_map(|item| doubled(item, depth - 1))
            {
                return Some(found);
            }
            let name = map.keys().next()?.clone();
            map.insert("\u{1F511}marker".into(), Theirs::Null);
            Some((name, "\"\u{1F511}marker\"".into()))
        }
        _ => None,
    }
}

proptest! {
    #[test]
    fn navigation_agrees_with_serde(value in json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        let theirs: Theirs = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(tree(parse(&text).unwrap().root()), theirs.clone());
        prop_assert_eq!(tree(parse(escaped(&text)).unwrap().root()), theirs.clone());
        let mut reader = Reader::lenient();
        prop_assert_eq!(tree(reader.parse(text.as_bytes()).unwrap()), theirs);
    }

    #[test]
    fn validity_agrees_with_serde(value in json(), edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4)) {
        let mut text = serde_json::to_vec(&value).unwrap();
        for (place, byte, kind) in edits {
            let at = place.index(text.len().max(1)).min(text.len());
            // Half of the edits are bytes with a meaning.
            let byte = if byte < 128 { b"{}[]\",:\\u0e1-+.\ntf"[usize::from(byte) % 18] } else { byte };
            match kind {
                0 if at < text.len() => text[at] = byte,
                1 if at < text.len() => { text.remove(at); }
                _ => text.insert(at, byte),
            }
        }
        let theirs = serde_json::from_slice::<Theirs>(&text);
        let huge = matches!(&theirs, Err(error) if error.to_string().contains("out of range"));
        match parse(&text) {
            Ok(_) if huge => {}
            Ok(document) => prop_assert_eq!(tree(document.root()), theirs.unwrap()),
            Err(ParseError { why: ParseErrorKind::DuplicateKey, .. }) => {}
            Err(invalid) => {
                prop_assert!(invalid.offset <= text.len());
                prop_assert!(theirs.is_err(), "{} in {:?}", invalid, String::from_utf8_lossy(&text));
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(text in vec(any::<u8>(), 0..200)) {
        let _ = parse(&text);
        if let Ok(value) = Reader::lenient().parse(&text) {
            let _ = tree(value);
        }
    }

    #[test]
    fn a_double_is_found_at_any_depth(mut value in json(), depth in 0..6usize, in_escapes in any::<bool>()) {
        if let Some((name, marker)) = doubled(&mut value, depth) {
            let text = serde_json::to_string(&value).unwrap();
            let mut name = serde_json::to_string(&name).unwrap();
            if in_escapes {
                name = escaped(&name);
            }
            prop_assert_eq!(why(text.replacen(&marker, &name, 1)).0, ParseErrorKind::DuplicateKey);
        }
    }
}
