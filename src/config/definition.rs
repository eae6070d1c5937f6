//! The definition of the configuration file, one file a section: the check, the defaults, the JSON schema and
//! docs/configuration are derived from it. A field that is not declared here does not exist.

mod licenses;
mod log;
mod models;
mod plans;
mod prompts;
mod providers;
mod server;
mod store;
mod types;

use self::{
    licenses::LICENSES,
    log::{FILTERS, LOG},
    models::{MODELS, PRICES},
    plans::PLANS,
    prompts::PROMPTS,
    providers::{PROVIDERS, WHOLE_BUDGET},
    server::{ADMIN, SERVER},
    store::{STORE, VAULT},
};
use super::field_type::{Field, FieldType};

/// The file itself.
pub const FILE: FieldType = FieldType::Record(&[
    Field::new("server", &FieldType::Record(SERVER), "The listener for apps."),
    Field::new(
        "admin",
        &FieldType::Record(ADMIN),
        "The listener for the operator: dashboard, status, metrics.",
    ),
    Field::new(
        "vault",
        &FieldType::Record(VAULT),
        "Keys that open sealed secrets. Not needed where no secret is sealed.",
    ),
    Field::new("store", &FieldType::Record(STORE), "Where usage is counted and stored."),
    Field::new("licenses", &FieldType::Record(LICENSES), "Accepted licences and their sources.")
        .required(),
    Field::new("plans", &PLANS, "What a licence may use, by plan name.").required(),
    Field::new("providers", &PROVIDERS, "AI providers and their API keys.").required(),
    Field::new("models", &MODELS, "Public model names and the targets behind them.").required(),
    Field::new(
        "prompts",
        &PROMPTS,
        "Prompts by name: apps choose one and send its variables, and nothing else about the model.",
    ),
    Field::new(
        "prices",
        &PRICES,
        "Dollars per million tokens by `provider/model`, with at most six decimals.",
    ),
    Field::new(
        "budget",
        &FieldType::Record(WHOLE_BUDGET),
        "Budget of all providers together. Answers in progress are finished, so it can be passed slightly.",
    ),
    Field::new(
        "filters",
        &FILTERS,
        "The chain, in order. Default: license, rate_limit, route, quota, meter.",
    ),
    Field::new("log", &FieldType::Record(LOG), "Logging."),
]);
