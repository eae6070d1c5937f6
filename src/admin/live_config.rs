//! What is live, for the page: plans, models with their targets, prices. No secret and no licence key.

use gatekeeper_filters::kernel::{Limit, ModelSet, Plan, Target};
use serde_json::{Value, json};

use crate::{
    prompts::{Prompt, history::History, variables::Variable},
    runtime::snapshot::Snapshot,
    telemetry::dollars,
};

/// Of each kind; a generated file must not make each look at the gateway long.
const MOST: usize = 100;

pub fn of(snapshot: &Snapshot) -> Value {
    let settings = &snapshot.settings;
    let plans: Vec<Value> = settings.plans.iter().take(MOST).map(|given| plan(given)).collect();
    let models = settings.models.values().take(MOST).map(|model| {
        let smart = model
            .smart
            .as_ref()
            .map(|smart| json!({ "simple": &*smart.simple.name, "complex": &*smart.complex.name }));
        let targets: Vec<Value> = model.targets.iter().map(|one| target(one)).collect();
        json!({ "name": &*model.name, "targets": targets, "smart": smart, "whole": model.whole })
    });
    let models: Vec<Value> = models.collect();
    let prompts: Vec<Value> =
        settings.prompts.values().take(MOST).map(|given| prompt(given)).collect();
    json!({
        "plans": plans, "models": models, "prompts": prompts,
        "more": settings.plans.len().saturating_sub(MOST) + settings.models.len().saturating_sub(MOST)
            + settings.prompts.len().saturating_sub(MOST),
    })
}

fn prompt(prompt: &Prompt) -> Value {
    let input = prompt.variables.iter().map(Variable::to_string);
    let input = input.chain(prompt.history.as_ref().map(History::to_string));
    json!({
        "name": &*prompt.name, "model": &*prompt.model, "input": input.collect::<Vec<_>>(),
        "max_output_tokens": prompt.max_output_tokens,
        "tools": prompt.tools.iter().map(|tool| &*tool.name).collect::<Vec<_>>(),
    })
}

fn names(of: &ModelSet) -> Vec<&str> {
    match of {
        ModelSet::All => vec!["*"],
        ModelSet::Only(names) => names.iter().map(|name| &**name).collect(),
    }
}

fn plan(plan: &Plan) -> Value {
    let limit =
        |limit: Option<Limit>| limit.map(|limit| format!("{}/{}", limit.count, limit.per.name()));
    json!({
        "name": &*plan.name, "messages": limit(plan.messages), "tokens": limit(plan.tokens),
        "rate": limit(plan.rate), "concurrency": plan.concurrency, "models": names(&plan.models),
        "prompts": names(&plan.prompts), "prompts_only": plan.prompts_only,
        "conversation": plan.conversation.map(|talk| json!({
            "rate": limit(talk.rate), "messages": limit(talk.messages), "repeats": talk.repeats,
        })),
        "max_output_tokens": plan.max_output_tokens, "max_input_tokens": plan.max_input_tokens,
    })
}

/// Picodollars a token are millionths of a dollar a million tokens.
fn per_million(price: u64) -> f64 {
    dollars(price.saturating_mul(1_000_000))
}

fn target(target: &Target) -> Value {
    let price = target.price.map(
        |price| json!({ "input": per_million(price.input), "output": per_million(price.output) }),
    );
    json!({ "target": &*target.label, "dialect": target.dialect.name(), "price": price })
}
