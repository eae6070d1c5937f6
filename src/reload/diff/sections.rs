//! One table for each kind of thing.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use gatekeeper_filters::kernel::{Model, ModelSet, ModelTimeouts, OnDisconnect, Plan};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use super::{
    format::{AUTO, NONE, UNLIMITED, dollars, duration, limit, list, or, price, size},
    section::Section,
};
use crate::{
    config::settings::{
        AccessLogSettings, IssuedAccount, KeySettings, LicenseSource, OnStoreDown,
        ProviderSettings, Settings, Strategy, Tls,
    },
    prompts::{Prompt, history::History, variables::Variable},
    shops::{Role, Variants, signed::SignedSource},
};

type Table = fn(&Settings) -> Vec<Section>;

/// In the order in which changes are told.
pub const ALL: [Table; 14] = [
    server, admin, vault, store, licenses, sources, plans, providers, models, prompts, prices,
    budget, filters, log,
];

/// What providers take where nothing is said.
const AUTO_TEMPERATURE: &str = "the provider's";

/// A path, where there is one.
fn path(path: Option<&PathBuf>) -> String {
    or(path.map(|path| path.display()), NONE)
}

fn server(settings: &Settings) -> Vec<Section> {
    let server = &settings.server;
    let tls = server.tls.as_ref();
    let limits = &server.limits;
    let proxies = list(server.trusted_proxies.iter().map(IpNet::to_string));
    let thing = Section::new("server")
        .says("listen", server.listen.to_string(), "")
        .says("threads", server.threads.to_string(), "")
        .says("grace", duration(server.grace), "")
        .says("tls.cert", path(tls.map(|tls| &tls.cert)), NONE)
        .says("tls.key", path(tls.map(|tls| &tls.key)), NONE)
        .hides("certificate", leaf(tls))
        .says("behind_tls", server.behind_tls.to_string(), "false")
        .says("trusted_proxies", proxies, NONE)
        .says("limits.body", size(limits.body), "")
        .says("limits.header_timeout", duration(limits.header_timeout), "")
        .says("limits.buffered", or(limits.buffered.map(size), AUTO), AUTO)
        .says("limits.requests", or(limits.requests, AUTO), AUTO)
        .says("limits.connections_per_address", or(limits.connections_per_address, AUTO), AUTO);
    vec![thing]
}

fn admin(settings: &Settings) -> Vec<Section> {
    let admin = &settings.admin;
    let thing = Section::new("admin")
        .says("listen", admin.listen.to_string(), "")
        .hides("token", secret(admin.token.as_ref()))
        .hides("read_token", secret(admin.read_token.as_ref()))
        .says("tls.cert", path(admin.tls.as_ref().map(|tls| &tls.cert)), NONE)
        .says("tls.key", path(admin.tls.as_ref().map(|tls| &tls.key)), NONE)
        .hides("certificate", leaf(admin.tls.as_ref()))
        .says("behind_tls", admin.behind_tls.to_string(), "false")
        .says("hosts", list(&admin.hosts), NONE);
    vec![thing]
}

/// The certificate that a listener shows.
fn leaf(tls: Option<&Tls>) -> Option<&[u8]> {
    tls.and_then(|tls| tls.pair.as_ref()).map(|pair| pair.leaf())
}

fn secret(secret: Option<&SecretString>) -> Option<&[u8]> {
    secret.map(|secret| secret.expose_secret().as_bytes())
}

/// A KEK's id tells nothing else about it.
fn vault(settings: &Settings) -> Vec<Section> {
    let thing = |vault: &crate::vault::VaultKeys| {
        Section::new("vault")
            .says("kek", vault.kek.id(), "")
            .says("previous", or(vault.previous.as_ref().map(|kek| kek.id()), NONE), NONE)
            .hides("pepper", secret(vault.pepper.as_ref()))
    };
    settings.vault.iter().map(thing).collect()
}

fn store(settings: &Settings) -> Vec<Section> {
    let store = &settings.store;
    let redis = store.redis.as_ref();
    let down = redis.map(|redis| match redis.on_store_down {
        OnStoreDown::Lease => "lease",
        OnStoreDown::Closed => "closed",
    });
    let evicts = redis.is_some_and(|redis| redis.unsafe_eviction);
    let thing = Section::new("store")
        .says("kind", if redis.is_some() { "redis" } else { "embedded" }, "embedded")
        .says("path", store.path.display().to_string(), "")
        .says("keep", duration(store.keep), "")
        .hides("url", secret(redis.map(|redis| &redis.url)))
        .says("on_store_down", or(down, NONE), NONE)
        .says("unsafe_eviction", evicts.to_string(), "false");
    vec![thing]
}

fn licenses(settings: &Settings) -> Vec<Section> {
    let licenses = &settings.licenses;
    let order = licenses.sources.iter().map(source_name);
    let thing = Section::new("licenses")
        .says("sources", list(order), "")
        .says("cache.fresh", duration(licenses.cache.fresh), "")
        .says("cache.stale", duration(licenses.cache.stale), "")
        .says("cache.negative", duration(licenses.cache.negative), "")
        .says("buy_url", or(licenses.buy_url.as_ref(), NONE), NONE);
    vec![thing]
}

fn source_name(source: &LicenseSource) -> String {
    match source {
        LicenseSource::Static(_) => "static".into(),
        LicenseSource::Signed(signed) => format!("signed {}", signed.audience),
        LicenseSource::Issued(issued) => format!("issued {}", issued.source.format.prefix()),
        LicenseSource::Shop(account) => {
            let source = &account.source;
            format!("{} {}", source.shop.name(), source.seller()).trim_end().to_owned()
        }
    }
}

/// Shops; what is listed in the file is counted apart.
fn sources(settings: &Settings) -> Vec<Section> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut named = |source: &LicenseSource| {
        let name = source_name(source);
        let times = times.entry(name.clone()).or_default();
        *times += 1;
        match *times {
            1 => Section::new(format!("licence source {name}")),
            nth => Section::new(format!("licence source {name} ({nth})")),
        }
    };
    let thing = |source: &LicenseSource| {
        let account = match source {
            LicenseSource::Static(_) => return None,
            LicenseSource::Signed(signed) => return Some(signed_thing(named(source), signed)),
            LicenseSource::Issued(issued) => return Some(issued_thing(named(source), issued)),
            LicenseSource::Shop(account) => account,
        };
        let (base, shop) = (&account.base, &account.source);
        let products = shop.products.iter().flat_map(|(id, of)| variants(id, of));
        let labels = shop.labels.iter().map(|(label, plan)| format!("{label} {}", plan.name));
        let budget = account.budget.map(|(calls, span)| format!("{calls} in {} s", span / 1000));
        // Under the names that the shop's own description gives them.
        let name = |role: Role, usual: &'static str| {
            let field = shop.shop.fields().iter().find(|field| field.role == role);
            field.map_or(usual, |field| field.name)
        };
        let thing = named(source)
            .says(name(Role::Products, "products"), list(products), NONE)
            .says(name(Role::Labels, "labels"), list(labels), NONE)
            .says(name(Role::Scope, "product"), or(shop.scope.as_ref(), NONE), NONE)
            .says(name(Role::Url, "base_url"), base.at(""), "")
            .says("allow_private", base.allow_private.to_string(), "false")
            .says("budget", or(budget, NONE), NONE)
            .says(name(Role::TestMode, "test_mode"), shop.test_mode.to_string(), "false")
            .hides(name(Role::ApiKey, "api_key"), secret(shop.api_key.as_ref()))
            .hides("webhook_secret", secret(shop.webhook_secret.as_ref()));
        Some(thing)
    };
    settings.licenses.sources.iter().filter_map(thing).collect()
}

fn signed_thing(thing: Section, signed: &SignedSource) -> Section {
    let keys = signed.keys.iter().map(|(kid, _)| kid.to_string());
    let plans = signed.plans.iter().map(|(word, plan)| format!("{word} {}", plan.name));
    let public: Vec<u8> = signed.keys.iter().flat_map(|(_, key)| *key).collect();
    // Which ids are revoked is a matter of buyers: they are counted.
    let mut ids: Vec<&str> = signed.revoked.iter().map(String::as_str).collect();
    ids.sort_unstable();
    thing
        .says("keys", list(keys), "")
        .hides("public keys", Some(&public))
        .hides("revoked ids", Some(ids.join("\n").as_bytes()))
        .says("id", signed.id.to_string(), "")
        .says("plan", format!("{}: {}", signed.plan, list(plans)), "")
        .says("perpetual", signed.perpetual.to_string(), "false")
        .says("revoked", signed.revoked.len().to_string(), "0")
}

fn issued_thing(thing: Section, issued: &IssuedAccount) -> Section {
    let (source, stripe) = (&issued.source, issued.source.stripe.as_ref());
    let prices = stripe.iter().flat_map(|stripe| &stripe.prices);
    let prices = prices.map(|(price, plan)| format!("{price} {}", plan.name));
    let numbers = |list: &[(Arc<str>, u64)]| {
        list.iter().map(|(plan, id)| format!("{plan} {id}")).collect::<Vec<_>>()
    };
    let api = source.lemonsqueezy_api.as_ref();
    thing
        .says("stripe.prices", list(prices), NONE)
        .says("stripe.grace", or(stripe.map(|stripe| duration(stripe.grace)), NONE), NONE)
        .says("stripe.sweep", or(stripe.map(|stripe| duration(stripe.sweep)), NONE), NONE)
        .says(
            "stripe.deep_link",
            or(stripe.and_then(|stripe| stripe.deep_link.as_ref()), NONE),
            NONE,
        )
        .says("base_url", or(issued.stripe_base.as_ref().map(|base| base.at("")), NONE), NONE)
        .hides("stripe.api_key", secret(stripe.and_then(|stripe| stripe.api_key.as_ref())))
        .hides(
            "stripe.webhook_secret",
            secret(stripe.and_then(|stripe| stripe.webhook_secret.as_ref())),
        )
        .says("lemonsqueezy_api.store_id", or(api.map(|api| api.store_id), NONE), NONE)
        .says(
            "lemonsqueezy_api.variants",
            list(api.into_iter().flat_map(|api| numbers(&api.variants))),
            NONE,
        )
        .says(
            "lemonsqueezy_api.products",
            list(api.into_iter().flat_map(|api| numbers(&api.products))),
            NONE,
        )
        .says("adopt", list(source.adopt.iter().map(|shop| shop.name().to_owned())), NONE)
}

fn variants(product: &str, variants: &Variants) -> Vec<String> {
    let named = variants.named.iter().map(|(id, plan)| format!("{product}/{id} {}", plan.name));
    let other = variants.other.iter().map(|plan| format!("{product}/* {}", plan.name));
    named.chain(other).collect()
}

fn plans(settings: &Settings) -> Vec<Section> {
    settings.plans.iter().map(|plan| plan_thing(settings, plan)).collect()
}

fn plan_thing(settings: &Settings, plan: &Plan) -> Section {
    let price = settings.plan_prices.iter().find(|price| price.plan == plan.name);
    let upgrade =
        plan.upgrade_url.as_ref().filter(|_| plan.upgrade_url != settings.licenses.buy_url);
    let disconnect = match plan.on_disconnect {
        OnDisconnect::Cut => "cut",
        OnDisconnect::Drain => "drain",
    };
    let talk = plan.conversation.as_ref();
    Section::new(format!("plan {}", plan.name))
        .says("messages", limit(plan.messages), UNLIMITED)
        .says("tokens", limit(plan.tokens), UNLIMITED)
        .says("rate", limit(plan.rate), UNLIMITED)
        .says("concurrency", or(plan.concurrency, UNLIMITED), "16")
        .says("models", opened(&plan.models), "")
        .says("prompts", opened(&plan.prompts), NONE)
        .says("prompts_only", plan.prompts_only.to_string(), "false")
        .says("conversation.rate", limit(talk.and_then(|talk| talk.rate)), UNLIMITED)
        .says("conversation.messages", limit(talk.and_then(|talk| talk.messages)), UNLIMITED)
        .says("conversation.repeats", or(talk.and_then(|talk| talk.repeats), UNLIMITED), UNLIMITED)
        .says("idempotency", or(plan.idempotency.map(duration), NONE), NONE)
        .says("max_output_tokens", or(plan.max_output_tokens, NONE), NONE)
        .says("min_output_tokens", plan.min_output_tokens.to_string(), "256")
        .says("max_input_tokens", or(plan.max_input_tokens, UNLIMITED), UNLIMITED)
        .says("devices", if plan.devices_required { "required" } else { "optional" }, "optional")
        .says("max_devices", or(plan.max_devices, UNLIMITED), UNLIMITED)
        .says("on_disconnect", disconnect, "cut")
        .says("upgrade_url", or(upgrade, NONE), NONE)
        .says("price", or(price.map(|price| dollars(price.month) + "/month"), NONE), NONE)
}

fn providers(settings: &Settings) -> Vec<Section> {
    let things = |provider: &ProviderSettings| {
        let name = format!("provider {}", provider.name);
        let keys = provider.keys.iter().map(|key| key_thing(&name, key)).collect::<Vec<_>>();
        [provider_thing(&name, provider)].into_iter().chain(keys)
    };
    settings.providers.iter().flat_map(things).collect()
}

fn provider_thing(name: &str, provider: &ProviderSettings) -> Section {
    let base = if provider.base.stand_in { "stand-in".into() } else { provider.base.at("") };
    let strategy = match provider.strategy {
        Strategy::RoundRobin => "round_robin",
        Strategy::LeastBusy => "least_busy",
        Strategy::Fastest => "fastest",
    };
    let timeouts = &provider.timeouts;
    Section::new(name)
        .says("base_url", base, "")
        .says("dialect", provider.dialect.name(), "openai")
        .says("strategy", strategy, "round_robin")
        .says("allow_private", provider.base.allow_private.to_string(), "false")
        .says("timeouts.connect", duration(timeouts.connect), "3s")
        .says("timeouts.first_byte", duration(timeouts.first_byte), "120s")
        .says("timeouts.first_token", duration(timeouts.first_token), "120s")
        .says("timeouts.idle", duration(timeouts.idle), "60s")
        .says("timeouts.total", duration(timeouts.total), "600s")
        .says("allow_fields", list(&provider.allow_fields), NONE)
        .says("output_cap_field", &*provider.output_cap_field, "max_completion_tokens")
        .says("identify", if provider.identify { "on" } else { "off" }, "on")
        .says("image_tokens", or(provider.image_tokens, AUTO), AUTO)
        .says("budget.day", or(provider.budget.map(dollars), NONE), NONE)
}

fn key_thing(provider: &str, key: &KeySettings) -> Section {
    let group = if key.group == key.id { NONE } else { &key.group };
    Section::new(format!("{provider}: key {}", key.id))
        .part_of(provider.into())
        .says("group", group, NONE)
        .says("weight", key.weight.to_string(), "1")
        .says("state", if key.off { "off" } else { "on" }, "on")
        .hides("secret", secret(Some(&key.secret)))
}

fn models(settings: &Settings) -> Vec<Section> {
    settings.models.values().map(|model| model_thing(model)).collect()
}

fn model_thing(model: &Model) -> Section {
    let smart = model.smart.as_ref().map(|smart| {
        let (simple, complex) = (&smart.simple.name, &smart.complex.name);
        format!("{simple}, or {complex} from score {} on", smart.threshold)
    });
    let ModelTimeouts { first_byte, first_token, idle, total } = model.timeouts;
    Section::new(format!("model {}", model.name))
        .says("targets", list(model.targets.iter().map(|target| &*target.label)), NONE)
        .says("smart", or(smart, NONE), NONE)
        .says("accepts", list(&model.accepts), NONE)
        .says("delivery", if model.whole { "whole" } else { "stream" }, "stream")
        .says("sticky", model.sticky.to_string(), "false")
        .says("timeouts.first_byte", or(first_byte.map(duration), NONE), NONE)
        .says("timeouts.first_token", or(first_token.map(duration), NONE), NONE)
        .says("timeouts.idle", or(idle.map(duration), NONE), NONE)
        .says("timeouts.total", or(total.map(duration), NONE), NONE)
}

fn opened(names: &ModelSet) -> String {
    match names {
        ModelSet::All => "*".to_owned(),
        ModelSet::Only(names) => list(names),
    }
}

fn prompts(settings: &Settings) -> Vec<Section> {
    settings.prompts.values().map(|prompt| prompt_thing(prompt)).collect()
}

/// Texts are too long for a line; that one changed is told.
fn prompt_thing(prompt: &Prompt) -> Section {
    let input = prompt.variables.iter().map(Variable::to_string);
    let input = input.chain(prompt.history.as_ref().map(History::to_string));
    let tools = prompt.tools.iter().map(|tool| format!("{} {}", tool.name, tool.parameters));
    let tools: Vec<String> = tools.collect();
    Section::new(format!("prompt {}", prompt.name))
        .says("model", &*prompt.model, "")
        .hides("system", Some(format!("{:?}", prompt.system).as_bytes()))
        .says("input", list(input), NONE)
        .says("temperature", or(prompt.temperature.as_ref(), AUTO_TEMPERATURE), AUTO_TEMPERATURE)
        .says("max_output_tokens", or(prompt.max_output_tokens, NONE), NONE)
        .hides("response_format", prompt.schema.as_ref().map(|schema| schema.json.as_bytes()))
        .says("tools", list(prompt.tools.iter().map(|tool| &tool.name)), NONE)
        .hides("definitions of tools", Some(tools.join("\n").as_bytes()))
}

/// Prices of targets that some model has; of others nothing is ever charged.
fn prices(settings: &Settings) -> Vec<Section> {
    let targets = settings.models.values().flat_map(|model| &model.targets);
    let priced: BTreeMap<_, _> =
        targets.filter_map(|target| Some((target.label.clone(), target.price?))).collect();
    let thing = |(label, of)| Section::new(format!("price of {label}")).says("is", price(of), "");
    priced.into_iter().map(thing).collect()
}

fn budget(settings: &Settings) -> Vec<Section> {
    vec![Section::new("budget").says("day", or(settings.budget.map(dollars), NONE), NONE)]
}

/// Options of filters that are not ours may be secrets.
fn filters(settings: &Settings) -> Vec<Section> {
    let chain = list(settings.filters.iter().map(|each| &each.name));
    let options = settings.filters.iter().map(|each| {
        let options = each.options.to_string();
        Section::new(format!("filter {}", each.name))
            .quiet()
            .hides("options", Some(options.as_bytes()))
    });
    [Section::new("chain").says("filters", chain, "")].into_iter().chain(options).collect()
}

fn log(settings: &Settings) -> Vec<Section> {
    let access = match &settings.log.access {
        AccessLogSettings::Off => "off".to_owned(),
        AccessLogSettings::Stdout => "stdout".to_owned(),
        AccessLogSettings::File(file) => format!("file:{}", file.display()),
    };
    let name = |level: log::LevelFilter| level.as_str().to_lowercase();
    let levels = &settings.log.levels;
    let parts = list(levels.parts.iter().map(|(part, level)| format!("{part} {}", name(*level))));
    let log = Section::new("log").says("access", access, "").says("level", name(levels.all), "");
    vec![log.says("levels", parts, "")]
}
