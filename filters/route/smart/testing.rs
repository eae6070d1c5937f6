//! An [`Ask`] of a body, without the machine that makes them.

use bytes::Bytes;

use crate::kernel::{Ask, Members, json::Document};

pub fn ask(body: &str) -> Ask {
    let document = Document::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let mut members = Members::new(document.source().clone());
    for (name, value) in document.root().members() {
        members.push_source(name.raw_span(), value.span());
    }
    Ask::new("auto".into(), members)
}
