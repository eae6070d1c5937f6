//! Licences of our own: the form of their keys, what Stripe sells, what apps of another shop read.

use std::sync::Arc;

use gatekeeper_filters::kernel::Plan;

use super::{named_plan::named_plan, shops::secret};
use crate::{
    config::{
        base_url,
        compile::field_reader::FieldReader,
        diagnostics::{Diagnostics, did_you_mean},
        secrets::SecretLoader,
        settings::{BaseUrl, IssuedAccount},
        validate::join,
        yaml::Node,
    },
    shops::{
        self,
        issued::{IssuedSource, LemonSqueezyApi, StripeSource, key_format::KeyFormat},
    },
};

const STRIPE: &str = "https://api.stripe.com";
/// Shorter secrets could be guessed by trying.
const SHORTEST_SECRET: usize = 16;
/// Schemes that a browser handles itself: a link of one of them opens no app.
const NO_APPS: [&str; 12] = [
    "http",
    "https",
    "javascript",
    "data",
    "file",
    "vbscript",
    "blob",
    "about",
    "ws",
    "wss",
    "ftp",
    "filesystem",
];

pub fn source(
    view: &FieldReader<'_>,
    plans: &[Arc<Plan>],
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Option<IssuedAccount> {
    if !opener.has_vault {
        let message = "licences of your own need a vault, which seals their keys: add `vault: { kek: \
                       file:conf/secrets/kek }`. Without KEK and pepper all of them are lost: back both up";
        report.problem(view.at("prefix"), view.path("prefix"), message);
    }
    let prefix = view.text("prefix")?;
    let Some(format) = KeyFormat::new(prefix) else {
        let message = "expected 2 to 16 letters and digits, like `JSTAR`";
        report.problem(view.at("prefix"), view.path("prefix"), message);
        return None;
    };
    let has_stripe = view.node("stripe").is_some();
    let stripe = has_stripe.then(|| stripe(&view.sub("stripe"), plans, opener, report));
    let stripe_base = match has_stripe {
        true => Some(base(view, report)?),
        false => None,
    };
    let has_api = view.node("lemonsqueezy_api").is_some();
    let lemonsqueezy_api =
        has_api.then(|| lemonsqueezy_api(&view.sub("lemonsqueezy_api"), plans, report));
    let adopt = view.texts("adopt").into_iter().filter_map(shops::by_name).collect();
    let source = IssuedSource {
        format,
        plans: plans.to_vec(),
        stripe,
        lemonsqueezy_api: lemonsqueezy_api.flatten(),
        adopt,
    };
    Some(IssuedAccount { source: Arc::new(source), stripe_base })
}

fn stripe(
    view: &FieldReader<'_>,
    plans: &[Arc<Plan>],
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> StripeSource {
    view.positive(&["sweep"], report);
    let path = view.path("prices");
    let mut prices = Vec::new();
    for entry in view.node("prices").map(Node::entries).unwrap_or_default() {
        let place = (entry.value.at, join(&path, &entry.key));
        let plan = entry.value.text().and_then(|name| named_plan(name, plans, place, report));
        prices.extend(plan.map(|plan| (Arc::from(entry.key.as_str()), plan)));
    }
    StripeSource {
        api_key: secret(view, "api_key", 1, opener, report),
        webhook_secret: secret(view, "webhook_secret", SHORTEST_SECRET, opener, report),
        prices,
        grace: view.duration("grace"),
        sweep: view.duration("sweep"),
        deep_link: deep_link(view, report),
    }
}

fn deep_link(view: &FieldReader<'_>, report: &mut Diagnostics) -> Option<Arc<str>> {
    let text = view.text("deep_link")?;
    let scheme = url::Url::parse(text).map(|url| url.scheme().to_owned());
    let wrong = match &scheme {
        Ok(scheme) if NO_APPS.contains(&&**scheme) => {
            format!(
                "a link of scheme `{scheme}` opens no app; use the app's own, like `jstar://license`"
            )
        }
        Ok(_) if text.contains("://") && !text.contains(['#', '"', '<', '>', ' ']) => {
            return Some(text.into());
        }
        _ => "expected the app's own scheme and a place, like `jstar://license`".to_owned(),
    };
    report.problem(view.at("deep_link"), view.path("deep_link"), wrong);
    None
}

/// Stripe's address; `base_url` of the source, or of `stripe` within it, replaces it.
fn base(view: &FieldReader<'_>, report: &mut Diagnostics) -> Option<BaseUrl> {
    let inner = view.sub("stripe");
    let place = if inner.node("base_url").is_some() { &inner } else { view };
    let parsed = match place.text("base_url").unwrap_or(STRIPE) {
        base_url::STAND_IN => Err("Stripe has no stand-in".to_owned()),
        text => base_url::parse(text, view.bool("allow_private") || inner.bool("allow_private")),
    };
    match parsed {
        Ok(mut base) => {
            if let Some(path) = base.path.strip_suffix("/v1") {
                base.path = path.to_owned();
            }
            Some(base)
        }
        Err(message) => {
            report.problem(place.at("base_url"), place.path("base_url"), message);
            None
        }
    }
}

fn lemonsqueezy_api(
    view: &FieldReader<'_>,
    plans: &[Arc<Plan>],
    report: &mut Diagnostics,
) -> Option<LemonSqueezyApi> {
    let mut ids = |name: &str| {
        let path = view.path(name);
        let mut ids = Vec::new();
        for entry in view.node(name).map(Node::entries).unwrap_or_default() {
            let number = entry.value.text().and_then(|text| text.parse::<u64>().ok());
            let plan = plans.iter().find(|plan| *plan.name == *entry.key);
            if plan.is_none() {
                let near = did_you_mean(&entry.key, plans.iter().map(|plan| &*plan.name));
                let message = format!("unknown plan `{}`{near}", entry.key);
                report.problem(entry.key_at, join(&path, &entry.key), message);
            }
            ids.extend(plan.zip(number).map(|(plan, number)| (plan.name.clone(), number)));
        }
        ids
    };
    let (variants, products) = (ids("variants"), ids("products"));
    Some(LemonSqueezyApi { store_id: view.int("store_id")?, variants, products })
}
