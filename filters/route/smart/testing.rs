//! An [`ModelRequest`] of a body, without the machine that makes them.

use bytes::Bytes;

use crate::kernel::{ModelRequest, RequestMembers, json::Document};

pub fn ask(body: &str) -> ModelRequest {
    let document = Document::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let mut members = RequestMembers::new(document.source().clone());
    for (name, value) in document.root().members() {
        members.push_source(name.raw_span(), value.span());
    }
    ModelRequest::new("auto".into(), members)
}
