//! `gatekeeper explain`: what a configuration file means.

use std::{fmt::Write as _, io::Write};

use gatekeeper_filters::kernel::{Limit, Model, ModelSet, Plan, Registry};

use super::sources;
use crate::config::{self, Settings};

pub(super) fn explain(
    settings: &Settings,
    registry: &Registry,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let chain = config::inert_chain(settings, registry).map_err(|problems| {
        let messages: Vec<_> = problems.into_iter().map(|problem| problem.message).collect();
        anyhow::anyhow!(messages.join("; "))
    })?;
    writeln!(out, "Filters, in the order a request meets them:")?;
    for (index, step) in chain.steps().iter().enumerate() {
        writeln!(out, "  {}. {:<12} {}", index + 1, step.name, step.summary)?;
        for (name, value) in step.options.as_object().into_iter().flatten() {
            writeln!(out, "       {name}: {value}")?;
        }
    }
    writeln!(out, "\nModels, first target first:")?;
    for (name, model) in settings.models.iter() {
        if let Some(smart) = &model.smart {
            let (simple, complex) = (&smart.simple.name, &smart.complex.name);
            writeln!(out, "  {name:<14} {simple}, or {complex} from score {} on", smart.threshold)?;
            continue;
        }
        let targets: Vec<_> = model.targets.iter().map(|target| &*target.label).collect();
        writeln!(out, "  {name:<14} {}", targets.join(", then "))?;
        writeln!(out, "  {:<14} {}", "", delivery(model))?;
        if !model.accepts.is_empty() {
            writeln!(out, "  {:<14} accepts {}", "", model.accepts.join(", "))?;
        }
    }
    if !settings.prompts.is_empty() {
        writeln!(out, "\nPrompts:")?;
    }
    for prompt in settings.prompts.values() {
        let variables = prompt.variables.iter().map(ToString::to_string);
        let input: Vec<_> =
            variables.chain(prompt.history.as_ref().map(ToString::to_string)).collect();
        let input = if input.is_empty() { "nothing".into() } else { input.join(", ") };
        writeln!(out, "  {:<14} model {}; takes {input}", prompt.name, prompt.model)?;
    }
    writeln!(out, "\nProviders:")?;
    for provider in &settings.providers {
        let base = &provider.base;
        let at = match (base.stand_in, base.tls) {
            (true, _) => "inside this process".to_owned(),
            (_, true) => format!("https://{}:{}{}", base.host, base.port, base.path),
            (_, false) => format!("http://{}:{}{}", base.host, base.port, base.path),
        };
        let keys: Vec<_> = provider.keys.iter().map(|key| &*key.id).collect();
        let dialect = provider.dialect.name();
        writeln!(out, "  {:<14} {dialect} at {at}; keys {}", provider.name, keys.join(", "))?;
    }
    writeln!(out, "\nPlans:")?;
    for plan in &settings.plans {
        writeln!(out, "  {:<14} {}", plan.name, describe(plan))?;
    }
    sources::explain(settings, out)
}

/// How a model's broken answer is delivered.
fn delivery(model: &Model) -> &'static str {
    if model.whole {
        "whole answers: one that breaks in the middle is asked for again before the app sees it"
    } else {
        "streams as they come: one that breaks after its first words ends in an error \
         (`delivery: whole` would ask again)"
    }
}

fn describe(plan: &Plan) -> String {
    let limit = |limit: Option<Limit>| match limit {
        Some(limit) => format!("{}/{}", limit.count, limit.per.name()),
        None => "unlimited".into(),
    };
    let mut text = format!(
        "messages {}, tokens {}, rate {}",
        limit(plan.messages),
        limit(plan.tokens),
        limit(plan.rate)
    );
    let mut add = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            let _ = write!(text, ", {name} {value}");
        }
    };
    add("concurrency", plan.concurrency.map(u64::from));
    add("max_output_tokens", plan.max_output_tokens);
    add("max_input_tokens", plan.max_input_tokens);
    let models = match &plan.models {
        ModelSet::All => "all".into(),
        ModelSet::Only(names) => names.join(", "),
    };
    let prompts = match &plan.prompts {
        ModelSet::All => "; prompts: all".into(),
        ModelSet::Only(names) if names.is_empty() => String::new(),
        ModelSet::Only(names) => format!("; prompts: {}", names.join(", ")),
    };
    match plan.prompts_only {
        true => text + &prompts + " and nothing else",
        false => text + "; models: " + &models + &prompts,
    }
}
