//! Where a request may go: the public model name becomes an ordered list of targets.

pub mod smart;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kernel::{
    AskedTier, Choice, Code, DivertReason, Endpoint, Exchange, Filter, Hooks, License, Model,
    ModelRequest, Models, Rejection, Route, RouteReason, Services, Smart, Spec, Target, Tier,
    TierSource, Verdict, async_trait, near::nearest,
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

    async fn request(&self, exchange: &mut Exchange, ask: &mut ModelRequest) -> Verdict {
        // The model of a prompt is the operator's choice, whatever the plan opens to the app itself.
        let license = exchange.license.as_ref().filter(|_| exchange.prompt.is_none());
        let asked = find(&self.models, license, &ask.model)?;
        let request = Request { exchange, ask };
        let route = match &asked.smart {
            None => {
                let targets = request.targets(asked)?;
                Route {
                    asked: asked.clone(),
                    model: asked.clone(),
                    targets,
                    why: RouteReason::Model,
                }
            }
            Some(smart) => request.route_smart(asked, smart)?,
        };
        exchange.route = Some(route);
        Ok(())
    }
}

/// What decides whether a model may serve.
struct Request<'a> {
    exchange: &'a Exchange,
    ask: &'a ModelRequest,
}

impl Request<'_> {
    /// The plan includes the model.
    fn allowed(&self, model: &Model) -> Verdict {
        let license = self.exchange.license.as_ref();
        allowed(license.filter(|_| self.exchange.prompt.is_none()), model)
    }

    /// The targets that take this request.
    fn targets(&self, model: &Model) -> Result<Vec<Arc<Target>>, Rejection> {
        accepts(model, self.ask)?;
        let endpoint = self.exchange.endpoint;
        let serves = |target: &&Arc<Target>| endpoint.at(target.dialect).is_some();
        let targets: Vec<_> = model.targets.iter().filter(serves).cloned().collect();
        if targets.is_empty() {
            return Err(elsewhere(model, endpoint).internal(format!(
                "no target of `{}` serves {}",
                model.name,
                endpoint.name()
            )));
        }
        Ok(targets)
    }

    /// The tier that the app or the score asks for; the other one where that can't serve.
    fn route_smart(&self, asked: &Arc<Model>, smart: &Smart) -> Result<Route, Rejection> {
        let (wanted, by) = match self.exchange.asked_tier {
            AskedTier::Tier(tier) => (tier, TierSource::Header),
            AskedTier::Unknown => return Err(unknown_tier()),
            AskedTier::None => {
                let score = smart::score(self.ask);
                let complex = score >= smart.threshold;
                (if complex { Tier::Complex } else { Tier::Simple }, TierSource::Score(score))
            }
        };
        let route = |tier: Tier, diverted| {
            let model = smart.model(tier);
            self.allowed(model)?;
            let targets = self.targets(model)?;
            let why = RouteReason::Smart(Choice { tier, by, diverted });
            Ok(Route { asked: asked.clone(), model: model.clone(), targets, why })
        };
        let refused: Rejection = match route(wanted, None) {
            Ok(route) => return Ok(route),
            Err(refused) => refused,
        };
        let diverted = match refused.code {
            Code::ModelNotAllowed => DivertReason::Plan,
            _ => DivertReason::Model,
        };
        route(wanted.other(), Some(diverted)).map_err(|_| refused)
    }
}

fn unknown_tier() -> Rejection {
    let message = "x-gatekeeper-tier must be \"simple\" or \"complex\".";
    Rejection::field("x-gatekeeper-tier", message)
}

/// The model of a name.
///
/// # Errors
/// 404 where there is none, 403 where the plan does not include it.
pub fn find<'a>(
    models: &'a Models,
    license: Option<&License>,
    name: &str,
) -> Result<&'a Arc<Model>, Rejection> {
    let model = models.get(name).ok_or_else(|| unknown(models, license, name))?;
    allowed(license, model)?;
    Ok(model)
}

/// The plan includes the model.
fn allowed(license: Option<&License>, model: &Model) -> Verdict {
    match license {
        Some(license) if !license.plan.models.allows(&model.name) => Err(Rejection::new(
            Code::ModelNotAllowed,
            format!("Your plan does not include the model \"{}\".", model.name),
        )
        .upgrade_url(license.plan.upgrade_url.clone())),
        _ => Ok(()),
    }
}

/// Models that a message lists.
const LISTED: usize = 8;

/// Names only what the plan includes; other models are not revealed.
fn unknown(models: &Models, license: Option<&License>, name: &str) -> Rejection {
    let has = |model: &&str| license.is_some_and(|license| license.plan.models.allows(model));
    let own: Vec<&str> = models.keys().map(|known| &**known).filter(has).collect();
    let mut message = format!("There is no model \"{}\" here.", Rejection::shown(name));
    if let Some(near) = nearest(name, own.iter().copied()) {
        message += &format!(" Did you mean \"{near}\"?");
    }
    if !own.is_empty() {
        let listed: Vec<String> =
            own.iter().take(LISTED).map(|known| format!("\"{known}\"")).collect();
        let rest = match own.len().saturating_sub(LISTED) {
            0 => String::new(),
            rest => format!(" and {rest} more (GET /v1/models lists them)"),
        };
        message += &format!(" Your plan has {}{rest}.", listed.join(", "));
    }
    Rejection { param: Some("model".into()), ..Rejection::new(Code::ModelNotFound, message) }
}

/// Where apps ask for an endpoint.
fn address(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Chat => "/v1/chat/completions",
        Endpoint::Responses => "/v1/responses",
        Endpoint::Embeddings => "/v1/embeddings",
        Endpoint::Messages => "/v1/messages",
        Endpoint::Generate => "/v1beta/models/{model}:generateContent",
    }
}

/// The model exists, for apps that use another API.
fn elsewhere(model: &Model, asked: Endpoint) -> Rejection {
    let serves = |endpoint: &Endpoint| {
        model.targets.iter().any(|target| endpoint.at(target.dialect).is_some())
    };
    let at: Vec<&str> = Endpoint::ALL.into_iter().filter(serves).map(address).collect();
    let message = format!(
        "The model \"{}\" exists, but is not served on this endpoint ({}). Ask for it at {}.",
        model.name,
        address(asked),
        at.join(" or ")
    );
    Rejection { param: Some("model".into()), ..Rejection::new(Code::ModelNotFound, message) }
}

/// Audio, files and video are refused unless the model lists them: their cost can't be reserved.
fn accepts(model: &Model, ask: &ModelRequest) -> Verdict {
    match ask.media.iter().find(|kind| !model.accepts.contains(kind)) {
        Some(kind) => Err(Rejection::field(
            "messages",
            format!(
                "The model \"{}\" does not take content of type \"{}\".",
                model.name,
                Rejection::shown(kind)
            ),
        )),
        None => Ok(()),
    }
}
