//! One table for each part of the file.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use gatekeeper_filters::kernel::{Model, ModelSet, ModelTimeouts, OnDisconnect, Plan};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use super::{
    change::ConfigPart,
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

/// In the order in which changes are listed.
pub const ALL: [(ConfigPart, Table); 14] = [
    (ConfigPart::Server, server),
    (ConfigPart::Admin, admin),
    (ConfigPart::Vault, vault),
    (ConfigPart::Store, store),
    (ConfigPart::Licenses, licenses),
    (ConfigPart::Licenses, sources),
    (ConfigPart::Plans, plans),
    (ConfigPart::Providers, providers),
    (ConfigPart::Models, models),
    (ConfigPart::Prompts, prompts),
    (ConfigPart::Prices, prices),
    (ConfigPart::Budget, budget),
    (ConfigPart::Filters, filters),
    (ConfigPart::Log, log),
];

/// The temperature if a prompt sets none.
const AUTO_TEMPERATURE: &str = "the provider's";

fn path(path: Option<&PathBuf>) -> String {
    or(path.map(|path| path.display()), NONE)
}

fn server(settings: &Settings) -> Vec<Section> {
    let server = &settings.server;
    let tls = server.tls.as_ref();
    let limits = &server.limits;
    let proxies = list(server.trusted_proxies.iter().map(IpNet::to_string));
    let section = Section::new("server")
        .shows("listen", server.listen.to_string(), "")
        .shows("threads", server.threads.to_string(), "")
        .shows("grace", duration(server.grace), "")
        .shows("tls.cert", path(tls.map(|tls| &tls.cert)), NONE)
        .shows("tls.key", path(tls.map(|tls| &tls.key)), NONE)
        .hides("certificate", leaf(tls))
        .shows("behind_tls", server.behind_tls.to_string(), "false")
        .shows("trusted_proxies", proxies, NONE)
        .shows("limits.body", size(limits.body), "")
        .shows("limits.header_timeout", duration(limits.header_timeout), "")
        .shows("limits.buffered", or(limits.buffered.map(size), AUTO), AUTO)
        .shows("limits.requests", or(limits.requests, AUTO), AUTO)
        .shows("limits.connections_per_address", or(limits.connections_per_address, AUTO), AUTO);
    vec![section]
}

fn admin(settings: &Settings) -> Vec<Section> {
    let admin = &settings.admin;
    let section = Section::new("admin")
        .shows("listen", admin.listen.to_string(), "")
        .hides("token", secret(admin.token.as_ref()))
        .hides("read_token", secret(admin.read_token.as_ref()))
        .shows("tls.cert", path(admin.tls.as_ref().map(|tls| &tls.cert)), NONE)
        .shows("tls.key", path(admin.tls.as_ref().map(|tls| &tls.key)), NONE)
        .hides("certificate", leaf(admin.tls.as_ref()))
        .shows("behind_tls", admin.behind_tls.to_string(), "false")
        .shows("hosts", list(&admin.hosts), NONE);
    vec![section]
}

/// The certificate that a listener presents.
fn leaf(tls: Option<&Tls>) -> Option<&[u8]> {
    tls.and_then(|tls| tls.pair.as_ref()).map(|pair| pair.leaf())
}

fn secret(secret: Option<&SecretString>) -> Option<&[u8]> {
    secret.map(|secret| secret.expose_secret().as_bytes())
}

/// The id of a KEK does not reveal the key.
fn vault(settings: &Settings) -> Vec<Section> {
    let section = |vault: &crate::vault::VaultKeys| {
        Section::new("vault")
            .shows("kek", vault.kek.id(), "")
            .shows("previous", or(vault.previous.as_ref().map(|kek| kek.id()), NONE), NONE)
            .hides("pepper", secret(vault.pepper.as_ref()))
    };
    settings.vault.iter().map(section).collect()
}

fn store(settings: &Settings) -> Vec<Section> {
    let store = &settings.store;
    let redis = store.redis.as_ref();
    let down = redis.map(|redis| match redis.on_store_down {
        OnStoreDown::Lease => "lease",
        OnStoreDown::Closed => "closed",
    });
    let evicts = redis.is_some_and(|redis| redis.unsafe_eviction);
    let section = Section::new("store")
        .shows("kind", if redis.is_some() { "redis" } else { "embedded" }, "embedded")
        .shows("path", store.path.display().to_string(), "")
        .shows("keep", duration(store.keep), "")
        .hides("url", secret(redis.map(|redis| &redis.url)))
        .shows("on_store_down", or(down, NONE), NONE)
        .shows("unsafe_eviction", evicts.to_string(), "false");
    vec![section]
}

fn licenses(settings: &Settings) -> Vec<Section> {
    let licenses = &settings.licenses;
    let order = licenses.sources.iter().map(source_name);
    let section = Section::new("licenses")
        .shows("sources", list(order), "")
        .shows("cache.fresh", duration(licenses.cache.fresh), "")
        .shows("cache.stale", duration(licenses.cache.stale), "")
        .shows("cache.negative", duration(licenses.cache.negative), "")
        .shows("buy_url", or(licenses.buy_url.as_ref(), NONE), NONE);
    vec![section]
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

/// Shops; the keys listed in the file are counted in [`ConfigPart::ListedKeys`].
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
    let section = |source: &LicenseSource| {
        let account = match source {
            LicenseSource::Static(_) => return None,
            LicenseSource::Signed(signed) => return Some(signed_section(named(source), signed)),
            LicenseSource::Issued(issued) => return Some(issued_section(named(source), issued)),
            LicenseSource::Shop(account) => account,
        };
        let (base, shop) = (&account.base, &account.source);
        let products = shop.products.iter().flat_map(|(id, of)| variants(id, of));
        let labels = shop.labels.iter().map(|(label, plan)| format!("{label} {}", plan.name));
        let budget = account.budget.map(|(calls, span)| format!("{calls} in {} s", span / 1000));
        // Field names differ between shops.
        let name = |role: Role, usual: &'static str| {
            let field = shop.shop.fields().iter().find(|field| field.role == role);
            field.map_or(usual, |field| field.name)
        };
        let section = named(source)
            .shows(name(Role::Products, "products"), list(products), NONE)
            .shows(name(Role::Labels, "labels"), list(labels), NONE)
            .shows(name(Role::Scope, "product"), or(shop.scope.as_ref(), NONE), NONE)
            .shows(name(Role::Url, "base_url"), base.at(""), "")
            .shows("allow_private", base.allow_private.to_string(), "false")
            .shows("budget", or(budget, NONE), NONE)
            .shows(name(Role::TestMode, "test_mode"), shop.test_mode.to_string(), "false")
            .hides(name(Role::ApiKey, "api_key"), secret(shop.api_key.as_ref()))
            .hides("webhook_secret", secret(shop.webhook_secret.as_ref()));
        Some(section)
    };
    settings.licenses.sources.iter().filter_map(section).collect()
}

fn signed_section(section: Section, signed: &SignedSource) -> Section {
    let keys = signed.keys.iter().map(|(kid, _)| kid.to_string());
    let plans = signed.plans.iter().map(|(word, plan)| format!("{word} {}", plan.name));
    let public: Vec<u8> = signed.keys.iter().flat_map(|(_, key)| *key).collect();
    // Revoked ids belong to buyers: only their number is shown.
    let mut ids: Vec<&str> = signed.revoked.iter().map(String::as_str).collect();
    ids.sort_unstable();
    section
        .shows("keys", list(keys), "")
        .hides("public keys", Some(&public))
        .hides("revoked ids", Some(ids.join("\n").as_bytes()))
        .shows("id", signed.id.to_string(), "")
        .shows("plan", format!("{}: {}", signed.plan, list(plans)), "")
        .shows("perpetual", signed.perpetual.to_string(), "false")
        .shows("revoked", signed.revoked.len().to_string(), "0")
}

fn issued_section(section: Section, issued: &IssuedAccount) -> Section {
    let (source, stripe) = (&issued.source, issued.source.stripe.as_ref());
    let prices = stripe.iter().flat_map(|stripe| &stripe.prices);
    let prices = prices.map(|(price, plan)| format!("{price} {}", plan.name));
    let numbers = |list: &[(Arc<str>, u64)]| {
        list.iter().map(|(plan, id)| format!("{plan} {id}")).collect::<Vec<_>>()
    };
    let api = source.lemonsqueezy_api.as_ref();
    section
        .shows("stripe.prices", list(prices), NONE)
        .shows("stripe.grace", or(stripe.map(|stripe| duration(stripe.grace)), NONE), NONE)
        .shows("stripe.sweep", or(stripe.map(|stripe| duration(stripe.sweep)), NONE), NONE)
        .shows(
            "stripe.deep_link",
            or(stripe.and_then(|stripe| stripe.deep_link.as_ref()), NONE),
            NONE,
        )
        .shows("base_url", or(issued.stripe_base.as_ref().map(|base| base.at("")), NONE), NONE)
        .hides("stripe.api_key", secret(stripe.and_then(|stripe| stripe.api_key.as_ref())))
        .hides(
            "stripe.webhook_secret",
            secret(stripe.and_then(|stripe| stripe.webhook_secret.as_ref())),
        )
        .shows("lemonsqueezy_api.store_id", or(api.map(|api| api.store_id), NONE), NONE)
        .shows(
            "lemonsqueezy_api.variants",
            list(api.into_iter().flat_map(|api| numbers(&api.variants))),
            NONE,
        )
        .shows(
            "lemonsqueezy_api.products",
            list(api.into_iter().flat_map(|api| numbers(&api.products))),
            NONE,
        )
        .shows("adopt", list(source.adopt.iter().map(|shop| shop.name().to_owned())), NONE)
}

fn variants(product: &str, variants: &Variants) -> Vec<String> {
    let named = variants.named.iter().map(|(id, plan)| format!("{product}/{id} {}", plan.name));
    let other = variants.other.iter().map(|plan| format!("{product}/* {}", plan.name));
    named.chain(other).collect()
}

fn plans(settings: &Settings) -> Vec<Section> {
    settings.plans.iter().map(|plan| plan_section(settings, plan)).collect()
}

fn plan_section(settings: &Settings, plan: &Plan) -> Section {
    let price = settings.plan_prices.iter().find(|price| price.plan == plan.name);
    let upgrade =
        plan.upgrade_url.as_ref().filter(|_| plan.upgrade_url != settings.licenses.buy_url);
    let disconnect = match plan.on_disconnect {
        OnDisconnect::Cut => "cut",
        OnDisconnect::Drain => "drain",
    };
    let conversation = plan.conversation.as_ref();
    Section::new(format!("plan {}", plan.name))
        .shows("messages", limit(plan.messages), UNLIMITED)
        .shows("tokens", limit(plan.tokens), UNLIMITED)
        .shows("rate", limit(plan.rate), UNLIMITED)
        .shows("concurrency", or(plan.concurrency, UNLIMITED), "16")
        .shows("models", opened(&plan.models), "")
        .shows("prompts", opened(&plan.prompts), NONE)
        .shows("prompts_only", plan.prompts_only.to_string(), "false")
        .shows(
            "conversation.rate",
            limit(conversation.and_then(|conversation| conversation.rate)),
            UNLIMITED,
        )
        .shows(
            "conversation.messages",
            limit(conversation.and_then(|conversation| conversation.messages)),
            UNLIMITED,
        )
        .shows(
            "conversation.repeats",
            or(conversation.and_then(|conversation| conversation.repeats), UNLIMITED),
            UNLIMITED,
        )
        .shows("idempotency", or(plan.idempotency.map(duration), NONE), NONE)
        .shows("max_output_tokens", or(plan.max_output_tokens, NONE), NONE)
        .shows("min_output_tokens", plan.min_output_tokens.to_string(), "256")
        .shows("max_input_tokens", or(plan.max_input_tokens, UNLIMITED), UNLIMITED)
        .shows("devices", if plan.devices_required { "required" } else { "optional" }, "optional")
        .shows("max_devices", or(plan.max_devices, UNLIMITED), UNLIMITED)
        .shows("on_disconnect", disconnect, "cut")
        .shows("upgrade_url", or(upgrade, NONE), NONE)
        .shows("price", or(price.map(|price| dollars(price.month) + "/month"), NONE), NONE)
}

fn providers(settings: &Settings) -> Vec<Section> {
    let sections = |provider: &ProviderSettings| {
        let name = format!("provider {}", provider.name);
        let keys = provider.keys.iter().map(|key| key_section(&name, key)).collect::<Vec<_>>();
        [provider_section(&name, provider)].into_iter().chain(keys)
    };
    settings.providers.iter().flat_map(sections).collect()
}

fn provider_section(name: &str, provider: &ProviderSettings) -> Section {
    let base = if provider.base.stand_in { "stand-in".into() } else { provider.base.at("") };
    let strategy = match provider.strategy {
        Strategy::RoundRobin => "round_robin",
        Strategy::LeastBusy => "least_busy",
        Strategy::Fastest => "fastest",
    };
    let timeouts = &provider.timeouts;
    Section::new(name)
        .shows("base_url", base, "")
        .shows("dialect", provider.dialect.name(), "openai")
        .shows("strategy", strategy, "round_robin")
        .shows("allow_private", provider.base.allow_private.to_string(), "false")
        .shows("timeouts.connect", duration(timeouts.connect), "3s")
        .shows("timeouts.first_byte", duration(timeouts.first_byte), "120s")
        .shows("timeouts.first_token", duration(timeouts.first_token), "120s")
        .shows("timeouts.idle", duration(timeouts.idle), "60s")
        .shows("timeouts.total", duration(timeouts.total), "600s")
        .shows("allow_fields", list(&provider.allow_fields), NONE)
        .shows("output_cap_field", &*provider.output_cap_field, "max_completion_tokens")
        .shows("identify", if provider.identify { "on" } else { "off" }, "on")
        .shows("image_tokens", or(provider.image_tokens, AUTO), AUTO)
        .shows("budget.day", or(provider.budget.map(dollars), NONE), NONE)
}

fn key_section(provider: &str, key: &KeySettings) -> Section {
    let group = if key.group == key.id { NONE } else { &key.group };
    Section::new(format!("{provider}: key {}", key.id))
        .part_of(provider.into())
        .shows("group", group, NONE)
        .shows("weight", key.weight.to_string(), "1")
        .shows("state", if key.off { "off" } else { "on" }, "on")
        .hides("secret", secret(Some(&key.secret)))
}

fn models(settings: &Settings) -> Vec<Section> {
    settings.models.values().map(|model| model_section(model)).collect()
}

fn model_section(model: &Model) -> Section {
    let smart = model.smart.as_ref().map(|smart| {
        let (simple, complex) = (&smart.simple.name, &smart.complex.name);
        format!("{simple}, or {complex} from score {} on", smart.threshold)
    });
    let ModelTimeouts { first_byte, first_token, idle, total } = model.timeouts;
    Section::new(format!("model {}", model.name))
        .shows("targets", list(model.targets.iter().map(|target| &*target.label)), NONE)
        .shows("smart", or(smart, NONE), NONE)
        .shows("accepts", list(&model.accepts), NONE)
        .shows("delivery", if model.whole { "whole" } else { "stream" }, "stream")
        .shows("sticky", model.sticky.to_string(), "false")
        .shows("timeouts.first_byte", or(first_byte.map(duration), NONE), NONE)
        .shows("timeouts.first_token", or(first_token.map(duration), NONE), NONE)
        .shows("timeouts.idle", or(idle.map(duration), NONE), NONE)
        .shows("timeouts.total", or(total.map(duration), NONE), NONE)
}

fn opened(names: &ModelSet) -> String {
    match names {
        ModelSet::All => "*".to_owned(),
        ModelSet::Only(names) => list(names),
    }
}

fn prompts(settings: &Settings) -> Vec<Section> {
    settings.prompts.values().map(|prompt| prompt_section(prompt)).collect()
}

/// Texts are too long for a line: only the fact of a change is shown.
fn prompt_section(prompt: &Prompt) -> Section {
    let input = prompt.variables.iter().map(Variable::to_string);
    let input = input.chain(prompt.history.as_ref().map(History::to_string));
    let tools = prompt.tools.iter().map(|tool| format!("{} {}", tool.name, tool.parameters));
    let tools: Vec<String> = tools.collect();
    Section::new(format!("prompt {}", prompt.name))
        .shows("model", &*prompt.model, "")
        .hides("system", Some(format!("{:?}", prompt.system).as_bytes()))
        .shows("input", list(input), NONE)
        .shows("temperature", or(prompt.temperature.as_ref(), AUTO_TEMPERATURE), AUTO_TEMPERATURE)
        .shows("max_output_tokens", or(prompt.max_output_tokens, NONE), NONE)
        .hides("response_format", prompt.schema.as_ref().map(|schema| schema.json.as_bytes()))
        .shows("tools", list(prompt.tools.iter().map(|tool| &tool.name)), NONE)
        .hides("definitions of tools", Some(tools.join("\n").as_bytes()))
}

/// Prices of targets that a model uses; the others have no effect.
fn prices(settings: &Settings) -> Vec<Section> {
    let targets = settings.models.values().flat_map(|model| &model.targets);
    let priced: BTreeMap<_, _> =
        targets.filter_map(|target| Some((target.label.clone(), target.price?))).collect();
    let section =
        |(label, of)| Section::new(format!("price of {label}")).shows("is", price(of), "");
    priced.into_iter().map(section).collect()
}

fn budget(settings: &Settings) -> Vec<Section> {
    vec![Section::new("budget").shows("day", or(settings.budget.map(dollars), NONE), NONE)]
}

/// Options of third-party filters may be secrets.
fn filters(settings: &Settings) -> Vec<Section> {
    let chain = list(settings.filters.iter().map(|each| &each.name));
    let options = settings.filters.iter().map(|each| {
        let options = each.options.to_string();
        Section::new(format!("filter {}", each.name))
            .quiet()
            .hides("options", Some(options.as_bytes()))
    });
    [Section::new("chain").shows("filters", chain, "")].into_iter().chain(options).collect()
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
    let log = Section::new("log").shows("access", access, "").shows("level", name(levels.all), "");
    vec![log.shows("levels", parts, "")]
}
