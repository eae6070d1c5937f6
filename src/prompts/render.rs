//! An app's request for a prompt becomes an ordinary request of the same endpoint.

use std::{fmt::Write as _, sync::Arc};

use bytes::Bytes;
use gatekeeper_filters::kernel::{Code, Endpoint, Plan, Rejection, json::Document, near::nearest};

use super::{
    Prompt, Prompts, history,
    history::{Turn, TurnRole},
    read::{self, PromptRequest, Way},
    template, variables,
    write::PromptBody,
};

/// The user's turn of a prompt without another one.
const BEGIN: &str = "Begin.";

/// An ordinary request, and the settings that it cannot contain.
#[derive(Debug)]
pub struct Rendered {
    pub prompt: Arc<Prompt>,
    pub body: Bytes,
    pub is_stream: bool,
    /// The app's cap, or the prompt's.
    pub output_cap: Option<u64>,
    /// The user's input in a form that is equal for repeated input; empty where the plan does not limit
    /// repeats.
    pub said: Vec<u8>,
    /// Members of the app's body that changed nothing.
    pub dropped: Vec<String>,
}

/// What the request asks of a prompt; `None` where it asks for none.
///
/// # Errors
/// 400 naming the field, 403 where the plan does not open the prompt, 404 where there is none of that name.
pub fn render(
    prompts: &Prompts,
    plan: Option<&Plan>,
    way: Way<'_>,
    body: &Bytes,
) -> Result<Option<Rendered>, Rejection> {
    if !may_be_one(way, body) {
        return Ok(None);
    }
    let document = Document::parse(body.clone()).map_err(|invalid| {
        Rejection::new(Code::InvalidRequest, format!("The body is not valid JSON: {invalid}."))
    })?;
    let Some(asked) = read::read(way, &document)? else { return Ok(None) };
    let prompt = find(prompts, plan, &asked)?;
    let endpoint = match way {
        Way::Own(_) => Endpoint::Chat,
        Way::Body(endpoint, _) => endpoint,
    };
    let is_counted = plan.is_some_and(|plan| plan.conversation.is_some());
    fill(prompt, &asked, endpoint, is_counted).map(Some)
}

/// Whether it is worth reading: a name of a prompt has the word in it. One written with escapes is passed over
/// here, and names no model further on.
fn may_be_one(way: Way<'_>, body: &Bytes) -> bool {
    match way {
        Way::Own(_) => true,
        Way::Body(Endpoint::Embeddings, _) => false,
        Way::Body(Endpoint::Generate, model) => model.and_then(super::named).is_some(),
        Way::Body(..) => memchr::memmem::find(body, b"prompt").is_some(),
    }
}

fn find(
    prompts: &Prompts,
    plan: Option<&Plan>,
    asked: &PromptRequest<'_>,
) -> Result<Arc<Prompt>, Rejection> {
    let opens = |name: &str| plan.is_none_or(|plan| plan.prompts.allows(name));
    let Some(prompt) = prompts.get(&*asked.name) else {
        let own = prompts.keys().map(|name| &**name).filter(|name| opens(name));
        let mut message = format!("There is no prompt \"{}\" here.", Rejection::shown(&asked.name));
        if let Some(near) = nearest(&asked.name, own) {
            let _ = write!(message, " Did you mean \"{near}\"?");
        }
        let code = if asked.named_by == "name" { Code::NotFound } else { Code::ModelNotFound };
        return Err(Rejection {
            param: Some(asked.named_by.into()),
            ..Rejection::new(code, message)
        });
    };
    if !opens(&prompt.name) {
        let message = format!("Your plan does not include the prompt \"{}\".", prompt.name);
        let url = plan.and_then(|plan| plan.upgrade_url.clone());
        return Err(Rejection::new(Code::ModelNotAllowed, message).upgrade_url(url));
    }
    Ok(prompt.clone())
}

fn fill(
    prompt: Arc<Prompt>,
    asked: &PromptRequest<'_>,
    endpoint: Endpoint,
    is_counted: bool,
) -> Result<Rendered, Rejection> {
    check_model(&prompt, asked)?;
    let output_cap = output_cap(&prompt, asked)?;
    let values = asked
        .variables
        .with(|sent, at| variables::values((&prompt.name, &prompt.variables), sent, at))?;
    let sent = asked.messages.iter().copied();
    let at = (asked.messages_at, asked.taken);
    let mut turns = history::turns(prompt.history.as_ref(), sent, at)?;
    let said = if is_counted { said(&values, &turns) } else { Vec::new() };
    let blocks = template::blocks(&prompt.variables, &values, &marker()?);
    close(&mut turns, blocks, asked.messages_at)?;
    let body = PromptBody {
        prompt: &prompt,
        values: &values,
        turns: &turns,
        is_stream: asked.is_stream,
        wants_usage: asked.wants_usage,
    };
    let body = Bytes::from(body.write(endpoint));
    let (is_stream, dropped) = (asked.is_stream, asked.dropped.clone());
    Ok(Rendered { body, is_stream, output_cap, said, dropped, prompt })
}

/// The values and the user's last turn, without the marker, which is another each time.
fn said(values: &[Option<String>], turns: &[Turn]) -> Vec<u8> {
    let last = turns.iter().rfind(|turn| turn.role == TurnRole::User).map(|turn| &*turn.text);
    let texts = values.iter().map(|value| value.as_deref().unwrap_or_default()).chain(last);
    texts.flat_map(|text| text.bytes().chain([0])).collect()
}

/// Values of data go in front of the user's last turn.
fn close(turns: &mut Vec<Turn>, blocks: String, at: &str) -> Result<(), Rejection> {
    match turns.last_mut() {
        Some(last) if last.role == TurnRole::User => {
            if !blocks.is_empty() {
                last.text = format!("{blocks}\n\n{}", last.text);
            }
        }
        Some(_) if blocks.is_empty() => {
            let message = format!("\"{at}\": the last message must be the user's.");
            return Err(Rejection::field(at, message));
        }
        _ => {
            let text = if blocks.is_empty() { BEGIN.into() } else { blocks };
            turns.push(Turn { role: TurnRole::User, text });
        }
    }
    Ok(())
}

/// The app may name the prompt where a model would stand, or leave it out.
fn check_model(prompt: &Prompt, asked: &PromptRequest<'_>) -> Result<(), Rejection> {
    match asked.model.as_deref() {
        None | Some("") => Ok(()),
        Some(model) if *model == *prompt.public_name || *model == *prompt.model => Ok(()),
        Some(_) => {
            Err(Rejection::field("model", "\"model\": the prompt has chosen it. Leave it out."))
        }
    }
}

fn output_cap(prompt: &Prompt, asked: &PromptRequest<'_>) -> Result<Option<u64>, Rejection> {
    match (asked.output_cap, prompt.max_output_tokens) {
        (Some((field, cap)), Some(most)) if cap > most => {
            let message =
                format!("\"{field}\": answers of this prompt have {most} tokens at most.");
            Err(Rejection::field(field, message))
        }
        (Some((_, cap)), _) => Ok(Some(cap)),
        (None, most) => Ok(most),
    }
}

/// What no app can guess before it has sent its values.
fn marker() -> Result<String, Rejection> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| {
        Rejection::new(Code::UpstreamExhausted, "The service is very busy. Please try again.")
            .internal(format!("no random numbers: {error}"))
            .retry_after(1)
    })?;
    Ok(format!("{:016x}", u64::from_ne_bytes(random)))
}
