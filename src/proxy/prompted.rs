//! What is asked: by a prompt, where the app names one, else by the app's own body.

use bytes::Bytes;
use gatekeeper_filters::kernel::{
    AskedTier, Code, Endpoint, Exchange, ModelRequest, Plan, Rejection,
};

use super::routes;
use crate::{
    dialect::{
        dropped,
        parse_body::{self, GeminiMethod},
    },
    prompts::{
        read::Way,
        render::{self, Rendered},
    },
    runtime::snapshot::Snapshot,
};

/// Reads the body of a request to this path; Gemini's says more in it. With what the user said last, where a prompt
/// is made of it and counted.
///
/// # Errors
/// 400 naming the field, and what a prompt refuses.
pub fn ask(
    exchange: &mut Exchange,
    snapshot: &Snapshot,
    (path, gemini): (&[u8], Option<GeminiMethod>),
    body: Bytes,
) -> Result<(ModelRequest, Option<Vec<u8>>), Rejection> {
    let (prompts, extra) = (&snapshot.settings.prompts, &snapshot.extra_fields);
    let endpoint = exchange.endpoint;
    if prompts.is_empty() {
        return Ok((parse_body::parse(endpoint, body, gemini, extra)?, None));
    }
    let plan = exchange.license.as_ref().map(|license| &*license.plan);
    let model = gemini.as_ref().map(|gemini| &*gemini.model);
    let way = routes::prompt_of(path).map_or(Way::Body(endpoint, model), Way::Own);
    let Some(rendered) = render::render(prompts, plan, way, &body)? else {
        require(plan)?;
        return Ok((parse_body::parse(endpoint, body, gemini, extra)?, None));
    };
    exchange.output_cap = rendered.output_cap;
    exchange.prompt = Some(rendered.prompt.public_name.clone());
    // Which tier of a smart model serves is no choice of the app's, either.
    exchange.asked_tier = AskedTier::None;
    let streams = gemini.map(|method| method.stream);
    Ok(request(endpoint, rendered, streams))
}

/// What is asked by a prompt. It was written here, of parts that are known: nothing is read in it again.
fn request(
    endpoint: Endpoint,
    rendered: Rendered,
    streams: Option<bool>,
) -> (ModelRequest, Option<Vec<u8>>) {
    let Rendered { prompt, members, input, output_cap, said, .. } = rendered;
    let mut ask = parse_body::made(endpoint, prompt.model.clone(), members, input);
    ask.stream = streams.unwrap_or(rendered.is_stream);
    ask.wants_usage = endpoint == Endpoint::Chat && rendered.wants_usage;
    ask.output_cap = output_cap;
    rendered.dropped.iter().for_each(|name| dropped::name(&mut ask.dropped, name));
    (ask, Some(said).filter(|said| !said.is_empty()))
}

/// # Errors
/// 403 where the plan takes nothing but prompts.
pub fn require(plan: Option<&Plan>) -> Result<(), Rejection> {
    let Some(plan) = plan.filter(|plan| plan.prompts_only) else { return Ok(()) };
    let message = "Your plan answers the requests of its app only. (For its developer: ask a prompt, by \
        POST /v1/prompts/NAME or as the model \"prompt/NAME\"; GET /v1/models lists them.)";
    Err(Rejection::new(Code::PromptRequired, message).upgrade_url(plan.upgrade_url.clone()))
}

#[cfg(test)]
mod tests;
