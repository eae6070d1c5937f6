//! Where a request may go: the public model name becomes an ordered list of targets.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kernel::{
    Ask, Code, Exchange, Filter, Hooks, Model, Models, Reject, Route, Services, Spec, Target,
    Verdict, async_trait,
};

/// YAML: `route`, no options; the names stand under `models`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {}

impl Spec for RouteSpec {
    const NAME: &'static str = "route";
    const SUMMARY: &'static str = "finds the targets of the model asked for (403, 404)";
    const AFTER: &'static [&'static str] = &["license"];

    fn build(self, services: &Services) -> Result<Arc<dyn Filter>, String> {
        Ok(Arc::new(RouteFilter { models: services.models.clone() }))
    }
}

struct RouteFilter {
    models: Arc<Models>,
}

#[async_trait]
impl Filter for RouteFilter {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST
    }

    async fn request(&self, exchange: &mut Exchange, ask: &mut Ask) -> Verdict {
        let model = self.models.get(&*ask.model).ok_or_else(|| unknown(&ask.model))?;
        if let Some(license) = &exchange.license
            && !license.plan.models.allows(&model.name)
        {
            return Err(Reject::new(
                Code::ModelNotAllowed,
                format!("Your plan does not include the model \"{}\".", model.name),
            )
            .upgrade_url(license.plan.upgrade_url.clone()));
        }
        accepts(model, ask)?;
        let endpoint = exchange.endpoint;
        let serves = |target: &&Arc<Target>| endpoint.at(target.dialect).is_some();
        let targets: Vec<_> = model.targets.iter().filter(serves).cloned().collect();
        if targets.is_empty() {
            return Err(unknown(&ask.model).internal(format!(
                "no target of `{}` serves {}",
                model.name,
                endpoint.name()
            )));
        }
        exchange.route = Some(Route { model: model.clone(), targets, why: "model" });
        Ok(())
    }
}

fn unknown(model: &str) -> Reject {
    let shown: String = model.chars().take(64).collect();
    let message = format!("There is no model \"{shown}\" here.");
    Reject { param: Some("model".into()), ..Reject::new(Code::ModelNotFound, message) }
}

/// Audio, files and video are refused unless the model lists them: their cost can't be reserved.
fn accepts(model: &Model, ask: &Ask) -> Verdict {
    match ask.media.iter().find(|kind| !model.accepts.contains(kind)) {
        Some(kind) => Err(Reject::field(
            "messages",
            format!("The model \"{}\" does not take content of type \"{kind}\".", model.name),
        )),
        None => Ok(()),
    }
}
