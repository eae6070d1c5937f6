//! Lists what another configuration changes, one line for each thing, for the operator.
//!
//! Each kind of thing (plans, providers, keys, models, ...) has one table in `sections`: its things by name, with the
//! settings of each as they are shown. Two tables are compared here. Secrets are compared by hash: a line says that one
//! changed and never shows it.

mod format;
mod section;
mod sections;

use std::collections::HashMap;

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use self::section::{Section, Value, short};
use crate::config::settings::{LicenseSource, Settings};

/// Every change from one configuration to another; empty when nothing changes.
pub fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    for table in sections::ALL {
        compare(&table(old), &table(new), &mut lines);
    }
    lines.extend(listed_licenses(old, new));
    lines
}

fn compare(old: &[Section], new: &[Section], lines: &mut Vec<String>) {
    let before: HashMap<&str, &Section> =
        old.iter().map(|thing| (thing.name.as_str(), thing)).collect();
    let after: HashMap<&str, &Section> =
        new.iter().map(|thing| (thing.name.as_str(), thing)).collect();
    let has = |things: &HashMap<&str, &Section>, part: &Section| {
        let whole = part.part_of.as_ref();
        !part.quiet && whole.is_none_or(|whole| things.contains_key(whole.as_str()))
    };
    for thing in new {
        match before.get(thing.name.as_str()) {
            Some(was) => changed(was, thing, lines),
            None if has(&before, thing) => {
                lines.push(format!("{} added{}", thing.name, thing.summary()));
            }
            None => {}
        }
    }
    let gone = old.iter().filter(|thing| !after.contains_key(thing.name.as_str()));
    lines.extend(gone.filter(|t| has(&after, t)).map(|thing| format!("{} removed", thing.name)));
}

fn changed(was: &Section, is: &Section, lines: &mut Vec<String>) {
    let name = &is.name;
    for (old, new) in was.facts.iter().zip(&is.facts) {
        let fact = new.name;
        lines.extend(match (&old.value, &new.value) {
            (old, new) if old == new => None,
            (Value::Said(old), Value::Said(new)) => {
                Some(format!("{name}: {fact} {} → {}", short(old), short(new)))
            }
            (Value::Hidden(None), _) => Some(format!("{name}: {fact} added")),
            (_, Value::Hidden(None)) => Some(format!("{name}: {fact} removed")),
            _ => Some(format!("{name}: {fact} changed")),
        });
    }
}

/// Licences that stand in the file are secrets of buyers: they are counted, by plan.
fn listed_licenses(old: &Settings, new: &Settings) -> Vec<String> {
    let (old, new) = (listed(old), listed(new));
    let mut counts: Vec<(String, usize)> = Vec::new();
    let mut count = |what: String| match counts.iter_mut().find(|(known, _)| *known == what) {
        Some((_, count)) => *count += 1,
        None => counts.push((what, 1)),
    };
    for (key, plan) in &new {
        match old.get(key) {
            None => count(format!("added (plan {plan})")),
            Some(was) if was != plan => count(format!("moved from plan {was} to {plan}")),
            Some(_) => {}
        }
    }
    for (key, plan) in &old {
        if !new.contains_key(key) {
            count(format!("removed (plan {plan})"));
        }
    }
    counts.sort();
    let line = |(what, count): (String, usize)| {
        format!("{count} listed {} {what}", if count == 1 { "licence" } else { "licences" })
    };
    counts.into_iter().map(line).collect()
}

/// The hash of each licence of the file, with its plan.
fn listed(settings: &Settings) -> HashMap<[u8; 32], String> {
    let lists = settings.licenses.sources.iter().filter_map(|source| match source {
        LicenseSource::Static(keys) => Some(keys),
        _ => None,
    });
    lists
        .flatten()
        .map(|listed| {
            let spelling = listed.key.expose_secret().trim().to_uppercase();
            let spelling = zeroize::Zeroizing::new(spelling);
            (Sha256::digest(spelling.as_bytes()).into(), listed.plan.name.to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests;
