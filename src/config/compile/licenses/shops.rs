//! Shops as sources of licences: what they sell, and which plan that is.

use std::sync::Arc;

use gatekeeper_filters::kernel::Plan;
use secrecy::{ExposeSecret, SecretString};

use super::named_plan;
use crate::config::{
    base_url,
    check::join,
    compile::view::View,
    problem::Report,
    raw::Node,
    secret::{ABSENT, Opener},
    settings::{BaseUrl, Gumroad, LemonSqueezy, Variants},
};

const LEMON_SQUEEZY: &str = "https://api.lemonsqueezy.com";
const GUMROAD: &str = "https://api.gumroad.com";

/// Shorter secrets could be guessed by trying.
const SHORTEST_SECRET: usize = 16;

pub fn lemon_squeezy(
    view: &View<'_>,
    plans: &[Arc<Plan>],
    opener: &Opener<'_>,
    report: &mut Report,
) -> Option<LemonSqueezy> {
    let products = products(view, plans, |id| id.parse().ok(), report);
    let test_mode = test_mode(view, report);
    Some(LemonSqueezy {
        webhook_secret: webhook_secret(view, opener, report),
        base: base(view, LEMON_SQUEEZY, "/v1", report)?,
        store_id: view.int("store_id")?,
        products,
        test_mode,
    })
}

pub fn gumroad(
    view: &View<'_>,
    plans: &[Arc<Plan>],
    opener: &Opener<'_>,
    report: &mut Report,
) -> Option<Gumroad> {
    let products = products(view, plans, |id| Some(Arc::from(id)), report);
    let test_mode = test_mode(view, report);
    Some(Gumroad {
        webhook_secret: webhook_secret(view, opener, report),
        base: base(view, GUMROAD, "/v2", report)?,
        products,
        test_mode,
    })
}

fn products<Id>(
    view: &View<'_>,
    plans: &[Arc<Plan>],
    id: impl Fn(&str) -> Option<Id>,
    report: &mut Report,
) -> Vec<(Id, Variants<Id>)> {
    let path = view.path("products");
    let mut products = Vec::new();
    for product in view.node("products").map(Node::entries).unwrap_or_default() {
        let path = join(&path, &product.key);
        let mut variants = Variants { named: Vec::new(), other: None };
        for variant in product.value.entries() {
            let Some(name) = variant.value.text() else { continue };
            let place = (variant.value.at, join(&path, &variant.key));
            let Some(plan) = named_plan(name, plans, place, report) else { continue };
            match (variant.key.as_str(), id(&variant.key)) {
                ("*", _) => variants.other = Some(plan),
                (_, Some(id)) => variants.named.push((id, plan)),
                _ => {}
            }
        }
        products.extend(id(&product.key).map(|id| (id, variants)));
    }
    products
}

fn test_mode(view: &View<'_>, report: &mut Report) -> bool {
    let takes = view.bool("test_mode");
    if takes {
        let message = "anybody can make licences in test mode: not for a gateway with real buyers";
        report.warn(view.at("test_mode"), view.path("test_mode"), message);
    }
    takes
}

fn webhook_secret(
    view: &View<'_>,
    opener: &Opener<'_>,
    report: &mut Report,
) -> Option<SecretString> {
    let node = view.node("webhook_secret")?;
    let path = view.path("webhook_secret");
    let secret = opener.plain(node, &path, report)?;
    let text = secret.expose_secret();
    if text == ABSENT {
        return None;
    }
    if text.len() < SHORTEST_SECRET {
        report.problem(node.at, path, format!("shorter than {SHORTEST_SECRET} characters"));
        return None;
    }
    Some(secret)
}

/// The shop's address. The version of its API belongs to the paths; written here too, it counts
/// once.
fn base(view: &View<'_>, default: &str, version: &str, report: &mut Report) -> Option<BaseUrl> {
    let text = view.text("base_url").unwrap_or(default);
    let parsed = match text {
        base_url::STAND_IN => Err("a shop has no stand-in".to_owned()),
        text => base_url::parse(text, view.bool("allow_private")),
    };
    match parsed {
        Ok(mut base) => {
            if let Some(path) = base.path.strip_suffix(version) {
                base.path = path.to_owned();
            }
            Some(base)
        }
        Err(message) => {
            report.problem(view.at("base_url"), view.path("base_url"), message);
            None
        }
    }
}
