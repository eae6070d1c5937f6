//! Lists what another configuration changes: one line for each item, with the part of the file it is in.
//!
//! Each part of the file (plans, providers, models, ...) has one table in `sections`: its items by name,
//! with the settings of each as they are shown. Two tables are compared here. Secrets are compared by hash:
//! a line reports a change and never shows the value.

mod change;
mod format;
mod section;
mod sections;

use std::collections::HashMap;

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

pub use self::change::{ConfigChange, ConfigPart};
use self::section::{Section, Value, short};
use crate::config::settings::{LicenseSource, Settings};

/// Every change from one configuration to another; empty when nothing changes.
pub fn changes(old: &Settings, new: &Settings) -> Vec<ConfigChange> {
    let mut changes = Vec::new();
    for (part, table) in sections::ALL {
        let mut lines = Vec::new();
        compare(&table(old), &table(new), &mut lines);
        changes.extend(lines.into_iter().map(|line| ConfigChange { part, line }));
    }
    let listed = listed_licenses(old, new).into_iter();
    changes.extend(listed.map(|line| ConfigChange { part: ConfigPart::ListedKeys, line }));
    changes
}

fn compare(old: &[Section], new: &[Section], lines: &mut Vec<String>) {
    let before: HashMap<&str, &Section> =
        old.iter().map(|item| (item.name.as_str(), item)).collect();
    let after: HashMap<&str, &Section> =
        new.iter().map(|item| (item.name.as_str(), item)).collect();
    let is_listed = |items: &HashMap<&str, &Section>, part: &Section| {
        let parent = part.part_of.as_ref();
        !part.quiet && parent.is_none_or(|parent| items.contains_key(parent.as_str()))
    };
    for item in new {
        match before.get(item.name.as_str()) {
            Some(was) => changed(was, item, lines),
            None if is_listed(&before, item) => {
                lines.push(format!("{} added{}", item.name, item.summary()));
            }
            None => {}
        }
    }
    let removed = old.iter().filter(|item| !after.contains_key(item.name.as_str()));
    let removed = removed.filter(|item| is_listed(&after, item));
    lines.extend(removed.map(|item| format!("{} removed", item.name)));
}

fn changed(was: &Section, is: &Section, lines: &mut Vec<String>) {
    let name = &is.name;
    for (old, new) in was.settings.iter().zip(&is.settings) {
        let setting = new.name;
        lines.extend(match (&old.value, &new.value) {
            (old, new) if old == new => None,
            (Value::Shown(old), Value::Shown(new)) => {
                Some(format!("{name}: {setting} {} → {}", short(old), short(new)))
            }
            (Value::Hidden(None), _) => Some(format!("{name}: {setting} added")),
            (_, Value::Hidden(None)) => Some(format!("{name}: {setting} removed")),
            _ => Some(format!("{name}: {setting} changed")),
        });
    }
}

/// Licence keys listed in the file are secrets of buyers: they are counted, by plan.
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
