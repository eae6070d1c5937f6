//! An app's request for a prompt becomes an ordinary request of the same endpoint.

use std::{
    borrow::Cow,
    fmt::Write as _,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use gatekeeper_filters::kernel::{
    Code, Endpoint, Input, Plan, Rejection, RequestMembers, json::Document, near::nearest,
};
use memchr::memmem;

use super::{
    Prompt, Prompts, history,
    history::{Turn, TurnRole},
    marker::Marker,
    read::{self, PromptRequest, Way},
    template,
    variables::{self, Variable},
    write::PromptBody,
};

/// The user's turn of a prompt without another one.
const BEGIN: &str = "Begin.";

/// An ordinary request, and the settings that it cannot contain.
#[derive(Debug)]
pub struct Rendered {
    pub prompt: Arc<Prompt>,
    /// All members of the new body, each of which passes.
    pub members: RequestMembers,
    /// What they weigh.
    pub input: Input,
    pub is_stream: bool,
    /// The app itself asked for a usage chunk.
    pub wants_usage: bool,
    /// The app's cap, or the prompt's.
    pub output_cap: Option<u64>,
    /// The user's input in a form that is equal for repeated input; empty where the plan does not limit
    /// repeats.
    pub said: Vec<u8>,
    /// Members of the app's body that changed nothing.
    pub dropped: Vec<String>,
}

impl Rendered {
    /// The new body.
    pub fn body(&self) -> &Bytes {
        self.members.source()
    }
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
    let Some(mut asked) = read::read(way, &document)? else { return Ok(None) };
    let prompt = find(prompts, plan, &asked)?;
    let endpoint = match way {
        Way::Own(_) => Endpoint::Chat,
        Way::Body(endpoint, _) => endpoint,
    };
    let is_counted = plan.is_some_and(|plan| plan.conversation.is_some());
    fill(prompt, &mut asked, endpoint, is_counted).map(Some)
}

/// Whether it is worth reading: a name of a prompt has the word in it. One written with escapes is passed over
/// here, and names no model further on.
fn may_be_one(way: Way<'_>, body: &Bytes) -> bool {
    match way {
        Way::Own(_) => true,
        Way::Body(Endpoint::Embeddings, _) => false,
        Way::Body(Endpoint::Generate, model) => model.and_then(super::named).is_some(),
        Way::Body(..) => WORD.find(body).is_some(),
    }
}

/// Made once: to make it costs more than to look for it.
static WORD: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new("prompt"));

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
    asked: &mut PromptRequest<'_>,
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
    let data = (&*prompt.variables, &*values);
    close(&mut turns, data, asked.messages_at)?;
    let body = PromptBody {
        prompt: &prompt,
        values: &values,
        turns: &turns,
        is_stream: asked.is_stream,
        wants_usage: asked.wants_usage,
    };
    let (members, input) = (body.write(endpoint), body.weight(endpoint).into_input());
    let (is_stream, wants_usage) = (asked.is_stream, asked.is_stream && asked.wants_usage);
    let dropped = std::mem::take(&mut asked.dropped);
    Ok(Rendered { members, input, is_stream, wants_usage, output_cap, said, dropped, prompt })
}

/// The values and the user's last turn, without the marker, which is another each time.
fn said(values: &[Option<String>], turns: &[Turn<'_>]) -> Vec<u8> {
    let last = turns.iter().rfind(|turn| turn.role == TurnRole::User).map(|turn| &*turn.text);
    let texts = values.iter().map(|value| value.as_deref().unwrap_or_default()).chain(last);
    texts.flat_map(|text| text.bytes().chain([0])).collect()
}

/// Values of data go in front of the user's last turn.
fn close(
    turns: &mut Vec<Turn<'_>>,
    (variables, values): (&[Variable], &[Option<String>]),
    at: &str,
) -> Result<(), Rejection> {
    let last = turns.last_mut();
    let is_open = last.is_some();
    let last = last.filter(|last| last.role == TurnRole::User);
    let turn = last.as_ref().map(|last| &*last.text);
    match (template::blocks(variables, values, Marker::random()?, turn), last) {
        (Some(text), Some(last)) => last.text = text.into(),
        (None, Some(_)) => {}
        (None, None) if is_open => {
            let message = format!("\"{at}\": the last message must be the user's.");
            return Err(Rejection::field(at, message));
        }
        (text, None) => {
            let text = text.map_or(Cow::Borrowed(BEGIN), Cow::Owned);
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
