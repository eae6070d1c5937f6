//! Signed licences: keys, claims, and what is revoked.

use std::{collections::HashSet, io::ErrorKind, path::Path, sync::Arc};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use gatekeeper_filters::kernel::Plan;

use super::named_plan::named_plan;
use crate::{
    config::{
        compile::field_reader::FieldReader, diagnostics::Diagnostics, validate::join, yaml::Node,
    },
    shops::signed::{Format, SignedSource},
};

/// Longest list of revoked ids, in bytes.
const LONGEST: u64 = 16 << 20;

pub fn source(
    view: &FieldReader<'_>,
    plans: &[Arc<Plan>],
    report: &mut Diagnostics,
) -> Option<SignedSource> {
    let format = match view.text("format")? {
        "keygen" => Format::Keygen,
        _ => Format::Jwt,
    };
    let usual = if format == Format::Keygen { "license.id" } else { "sub" };
    let keys = keys(view, report);
    let (claim, words) = plan(view, plans, report)?;
    let perpetual = view.bool("perpetual");
    if perpetual {
        let message =
            "licences without an end can be stopped by `revoked` and `licenses revoke` only";
        report.warn(view.at("perpetual"), view.path("perpetual"), message);
    }
    Some(SignedSource {
        format,
        keys: keys?,
        audience: view.text("audience")?.into(),
        id: view.text("id").unwrap_or(usual).into(),
        plan: claim,
        plans: words,
        perpetual,
        revoked: revoked(view, report)?,
    })
}

fn keys(view: &FieldReader<'_>, report: &mut Diagnostics) -> Option<Vec<(Arc<str>, [u8; 32])>> {
    let path = view.path("keys");
    let mut keys = Vec::new();
    let mut is_good = true;
    for entry in view.node("keys").map(Node::entries).unwrap_or_default() {
        let text = entry.value.text().unwrap_or_default();
        match text.strip_prefix("ed25519:").and_then(public_key) {
            Some(key) => keys.push((entry.key.as_str().into(), key)),
            None => {
                let message =
                    "expected a public key like `ed25519:BASE64`, 32 bytes, or its SPKI form";
                report.problem(entry.value.at, join(&path, &entry.key), message);
                is_good = false;
            }
        }
    }
    is_good.then_some(keys)
}

/// 32 bytes in base64 or hex, as they are or in the envelope of RFC 8410 (the body of a PEM file).
fn public_key(text: &str) -> Option<[u8; 32]> {
    const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    if let Some(key) = gatekeeper_filters::kernel::LicenseId::from_hex(text) {
        return Some(key.0);
    }
    let bare = text.trim_end_matches('=');
    let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(bare)).ok()?;
    bytes.strip_prefix(&SPKI[..]).unwrap_or(&bytes).try_into().ok()
}

type PlanClaim = (Arc<str>, Vec<(Arc<str>, Arc<Plan>)>);

fn plan(
    view: &FieldReader<'_>,
    plans: &[Arc<Plan>],
    report: &mut Diagnostics,
) -> Option<PlanClaim> {
    let (node, path) = (view.node("plan")?, view.path("plan"));
    if let Some(text) = node.text() {
        let Some(claim) = text.strip_prefix("claim:").filter(|claim| !claim.is_empty()) else {
            report.problem(node.at, path, "expected `claim:NAME`, or a claim with its words");
            return None;
        };
        return Some((claim.into(), plans.iter().map(|p| (p.name.clone(), p.clone())).collect()));
    }
    let [claim] = node.entries() else {
        report.problem(node.at, path, "expected one claim with its words");
        return None;
    };
    let path = join(&path, &claim.key);
    let words = claim.value.entries().iter().filter_map(|word| {
        let place = (word.value.at, join(&path, &word.key));
        let plan = named_plan(word.value.text()?, plans, place, report)?;
        Some((word.key.as_str().into(), plan))
    });
    let words = words.collect();
    Some((claim.key.as_str().into(), words))
}

/// The list of `revoked`. One that can't be read is a problem: without it, revoked licences would be valid.
fn revoked(view: &FieldReader<'_>, report: &mut Diagnostics) -> Option<HashSet<String>> {
    let Some(text) = view.text("revoked") else { return Some(HashSet::new()) };
    let wrong = |report: &mut Diagnostics, message: String| {
        report.problem(view.at("revoked"), view.path("revoked"), message);
        None
    };
    let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) else {
        return wrong(report, "expected `file:PATH`".into());
    };
    let path = Path::new(path);
    report.files.note(path);
    match std::fs::metadata(path) {
        Ok(file) if file.len() > LONGEST => return wrong(report, "larger than 16 MiB".into()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return wrong(report, "no such file; an empty one revokes nothing".into());
        }
        Err(error) => return wrong(report, format!("can't be read: {error}")),
    }
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let lines = text.lines().map(str::trim);
            let ids = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            Some(ids.map(str::to_owned).collect())
        }
        Err(error) => wrong(report, format!("can't be read: {error}")),
    }
}
