//! Shops as sources of licences: what they sell, and which plan that is. What a member is for is declared by the
//! shop (`shops::Role`).

use std::sync::Arc;

use gatekeeper_filters::kernel::Plan;
use secrecy::{ExposeSecret, SecretString};

use super::named_plan::named_plan;
use crate::{
    config::{
        base_url,
        compile::field_reader::FieldReader,
        diagnostics::Diagnostics,
        scalars,
        secrets::{ABSENT, SecretLoader},
        settings::{BaseUrl, ShopAccount},
        validate::join,
        yaml::{MapEntry, Node},
    },
    shops::{Role, Shop, ShopSource, Variants, YamlField},
};

/// Shorter secrets could be guessed by trying.
const SHORTEST_SECRET: usize = 16;

pub fn account(
    shop: &'static dyn Shop,
    view: &FieldReader<'_>,
    plans: &[Arc<Plan>],
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Option<ShopAccount> {
    let mut source = ShopSource::new(shop);
    let mut is_whole = true;
    let mut address = None;
    for field in shop.fields() {
        let text = || view.text(field.name);
        match field.role {
            Role::Seller => source.seller = text().map(Arc::from),
            // One number, however it is written.
            Role::SellerNumber => {
                source.seller = view.int(field.name).map(|number| number.to_string().into());
            }
            Role::Scope => source.scope = text().map(Arc::from),
            Role::Products => {
                let plans = flat(view, field.name, plans, report);
                source.products.extend(
                    plans.map(|(id, plan)| (id, Variants { named: Vec::new(), other: Some(plan) })),
                );
            }
            Role::Labels => source.labels.extend(flat(view, field.name, plans, report)),
            Role::NumberedVariants | Role::NamedVariants => {
                source.products = products(view, field, plans, report);
            }
            Role::ApiKey => source.api_key = secret(view, field.name, 1, opener, report),
            Role::TestMode => source.test_mode = test_mode(view, field.name, report),
            Role::Url => address = Some(field.name),
        }
        is_whole &= !field.required || view.node(field.name).is_some();
    }
    if shop.webhook().is_some() {
        source.webhook_secret = secret(view, "webhook_secret", SHORTEST_SECRET, opener, report);
    }
    if address.is_some() {
        source.plans = plans.to_vec();
    }
    warn_of_devices(&source, view, report);
    let base = base(shop, &source, view, address.unwrap_or("base_url"), report)?;
    let budget = view.text("budget").and_then(|text| scalars::call_limit(text).ok());
    is_whole.then_some(ShopAccount { base, budget, source })
}

/// Id to plan.
fn flat(
    view: &FieldReader<'_>,
    name: &str,
    plans: &[Arc<Plan>],
    report: &mut Diagnostics,
) -> impl Iterator<Item = (Arc<str>, Arc<Plan>)> {
    let path = view.path(name);
    let mut found = Vec::new();
    for entry in view.node(name).map(Node::entries).unwrap_or_default() {
        found.extend(
            plan_of(entry, &path, plans, report).map(|plan| (entry.key.as_str().into(), plan)),
        );
    }
    found.into_iter()
}

fn plan_of(
    entry: &MapEntry,
    path: &str,
    plans: &[Arc<Plan>],
    report: &mut Diagnostics,
) -> Option<Arc<Plan>> {
    let place = (entry.value.at, join(path, &entry.key));
    named_plan(entry.value.text()?, plans, place, report)
}

fn products(
    view: &FieldReader<'_>,
    field: &YamlField,
    plans: &[Arc<Plan>],
    report: &mut Diagnostics,
) -> Vec<(Arc<str>, Variants)> {
    let path = view.path(field.name);
    // One number, however it is written; what is none is reported already.
    let id = |text: &str| match field.role {
        Role::NumberedVariants => text.parse::<u64>().ok().map(|id| Arc::from(id.to_string())),
        _ => Some(Arc::from(text)),
    };
    let mut products = Vec::new();
    for product in view.node(field.name).map(Node::entries).unwrap_or_default() {
        let path = join(&path, &product.key);
        let mut variants = Variants::default();
        for variant in product.value.entries() {
            let Some(plan) = plan_of(variant, &path, plans, report) else { continue };
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

fn test_mode(view: &FieldReader<'_>, name: &str, report: &mut Diagnostics) -> bool {
    let takes = view.bool(name);
    if takes {
        let message =
            "test mode accepts licences that cost nothing: not for a gateway with real buyers";
        report.warn(view.at(name), view.path(name), message);
    }
    takes
}

pub(super) fn secret(
    view: &FieldReader<'_>,
    name: &str,
    shortest: usize,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> Option<SecretString> {
    let node = view.node(name)?;
    let path = view.path(name);
    let secret = opener.plain(node, &path, report)?;
    let text = secret.expose_secret();
    if text == ABSENT {
        return None;
    }
    if text.len() < shortest {
        report.problem(node.at, path, format!("shorter than {shortest} characters"));
        return None;
    }
    Some(secret)
}

/// A shop that knows a key only together with a device can't be asked where the app sends none.
fn warn_of_devices(source: &ShopSource, view: &FieldReader<'_>, report: &mut Diagnostics) {
    // An API key that is not on this machine still counts as configured.
    let key = source.shop.fields().iter().find(|field| field.role == Role::ApiKey);
    let is_meant = key.is_some_and(|field| view.node(field.name).is_some());
    let meant = ShopSource {
        api_key: is_meant.then(|| SecretString::from(ABSENT)),
        ..ShopSource::new(source.shop)
    };
    let comes_first =
        source.shop.instances().is_some_and(|instances| instances.comes_first(&meant));
    let without = source.all_plans().find(|plan| !plan.devices_required);
    if let (true, Some(plan)) = (comes_first, without) {
        let message = format!(
            "{} knows a key only together with an activated device: plan `{}` needs `devices: required`",
            source.shop.name(),
            plan.name
        );
        let products = source.shop.fields().iter().find(|field| field.role == Role::Products);
        let name = products.map_or("products", |field| field.name);
        report.warn(view.at(name), view.path(name), message);
    }
}

/// The shop's address. The version of its API belongs to the paths; written here too, it counts
/// once.
fn base(
    shop: &'static dyn Shop,
    source: &ShopSource,
    view: &FieldReader<'_>,
    name: &str,
    report: &mut Diagnostics,
) -> Option<BaseUrl> {
    let known = shop.constants();
    let usual = known.sandbox.filter(|_| source.test_mode).or(known.base);
    let parsed = match view.text(name).or(usual)? {
        base_url::STAND_IN => Err("a shop has no stand-in".to_owned()),
        text => base_url::parse(text, view.bool("allow_private")),
    };
    match parsed {
        Ok(mut base) => {
            if let Some(path) = base.path.strip_suffix(known.version) {
                base.path = path.to_owned();
            }
            Some(base)
        }
        Err(message) => {
            report.problem(view.at(name), view.path(name), message);
            None
        }
    }
}
