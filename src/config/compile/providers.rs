//! Providers and their keys.

use std::{collections::HashMap, sync::Arc};

use gatekeeper_filters::kernel::Dialect;
use secrecy::SecretString;

use super::field_reader::FieldReader;
use crate::{
    config::{
        base_url::{self, STAND_IN},
        diagnostics::{Diagnostics, did_you_mean},
        scalars,
        secrets::SecretLoader,
        settings::{BaseUrl, KeySettings, ProviderSettings, Strategy, Timeouts},
        yaml::Node,
    },
    vault::pepper::PLACE,
};

/// The providers that compiled, and the names of all, so that a name that stands there is known
/// even where its provider is broken.
#[derive(Default)]
pub struct Providers {
    pub list: Vec<ProviderSettings>,
    names: Vec<String>,
}

impl Providers {
    pub fn position(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|provider| &*provider.name == name)
    }

    /// What is wrong with a provider's name, if anything.
    pub fn unknown(&self, name: &str) -> Option<String> {
        if self.names.iter().any(|known| known == name) {
            return None;
        }
        let near = did_you_mean(name, self.names.iter().map(String::as_str));
        Some(format!("unknown provider `{name}`{near}"))
    }
}

pub fn compile(
    root: &FieldReader<'_>,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Providers {
    let mut providers = Providers::default();
    let shape = root.items_of("providers");
    for entry in root.node("providers").map(Node::entries).unwrap_or_default() {
        providers.names.push(entry.key.clone());
        let path = format!("providers.{}", entry.key);
        if entry.key == PLACE.0 {
            report.problem(entry.key_at, &path, "this name is taken by the vault itself");
        }
        let view = FieldReader::item(&entry.value, shape, path);
        providers.list.extend(provider(&entry.key, &view, opener, report));
    }
    providers
}

fn provider(
    name: &str,
    view: &FieldReader<'_>,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Option<ProviderSettings> {
    let base = base(view, report);
    let keys = keys(name, view, base.as_ref(), opener, report);
    let timeouts = timeouts(&view.sub("timeouts"), report);
    Some(ProviderSettings {
        name: name.into(),
        base: base?,
        dialect: match view.text("dialect")? {
            "anthropic" => Dialect::Anthropic,
            "gemini" => Dialect::Gemini,
            _ => Dialect::OpenAi,
        },
        strategy: match view.text("strategy")? {
            "least_busy" => Strategy::LeastBusy,
            "fastest" => Strategy::Fastest,
            _ => Strategy::RoundRobin,
        },
        timeouts,
        allow_fields: view.texts("allow_fields").into_iter().map(Arc::from).collect(),
        output_cap_field: view.text("output_cap_field")?.into(),
        identify: view.text("identify") != Some("off"),
        image_tokens: view.text("image_tokens").and_then(|text| scalars::image_tokens(text).ok()),
        budget: view.budget(),
        keys,
    })
}

fn base(view: &FieldReader<'_>, report: &mut Diagnostics) -> Option<BaseUrl> {
    let text = view.text("base_url")?;
    base_url::parse(text, view.bool("allow_private"))
        .map_err(|message| {
            let near =
                if text.contains(':') { String::new() } else { did_you_mean(text, [STAND_IN]) };
            report.problem(view.at("base_url"), view.path("base_url"), message + &near);
        })
        .ok()
}

fn timeouts(view: &FieldReader<'_>, report: &mut Diagnostics) -> Timeouts {
    view.positive(&["connect", "first_byte", "first_token", "idle", "total"], report);
    Timeouts {
        connect: view.duration("connect"),
        first_byte: view.duration("first_byte"),
        first_token: view.duration("first_token"),
        idle: view.duration("idle"),
        total: view.duration("total"),
    }
}

fn keys(
    provider: &str,
    view: &FieldReader<'_>,
    base: Option<&BaseUrl>,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Vec<KeySettings> {
    let Some(list) = view.node("keys") else {
        match base {
            Some(base) if !needs_key(base) => return vec![keyless(provider)],
            Some(_) => {
                let message = "missing: this provider requires at least one API key";
                report.problem(view.at("keys"), view.path("keys"), message);
            }
            None => {}
        }
        return Vec::new();
    };
    let mut lines = HashMap::new();
    let mut keys = Vec::new();
    for (index, node) in list.items().iter().enumerate() {
        let view = FieldReader::item(
            node,
            view.items_of("keys"),
            format!("{}[{index}]", view.path("keys")),
        );
        keys.extend(key(provider, &view, opener, report));
        let Some(id) = view.text("id") else { continue };
        if let Some(line) = lines.insert(id.to_owned(), node.at.line) {
            let message = format!("duplicate key id `{id}`; it stands on line {line} already");
            report.problem(view.at("id"), view.path("id"), message);
        }
    }
    keys
}

/// Local models ask for no key.
fn needs_key(base: &BaseUrl) -> bool {
    let loopback = base.host == "localhost"
        || base.host.parse::<std::net::IpAddr>().is_ok_and(|a| a.to_canonical().is_loopback());
    !(base.stand_in || base.allow_private || loopback)
}

/// The key of a provider that needs none: the value has no meaning.
fn keyless(provider: &str) -> KeySettings {
    let id: Arc<str> = format!("{provider}-1").into();
    KeySettings {
        id: id.clone(),
        secret: SecretString::from("none"),
        group: id,
        weight: 1,
        off: false,
    }
}

fn key(
    provider: &str,
    view: &FieldReader<'_>,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Option<KeySettings> {
    let id = view.text("id");
    // A sealed secret is bound to its key's id; without one there is nothing to open it with.
    let secret = view
        .node("secret")
        .and_then(|node| opener.open(node, (provider, id?), &view.path("secret"), report));
    let id: Arc<str> = id?.into();
    Some(KeySettings {
        secret: secret?,
        group: view.text("group").map_or_else(|| id.clone(), Arc::from),
        weight: view.int("weight")?.try_into().ok()?,
        off: view.text("state") == Some("off"),
        id,
    })
}
