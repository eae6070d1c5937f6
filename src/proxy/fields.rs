//! Which members of a body may reach a provider, and which requests would cost more than a message.
//!
//! The lists are those of the providers' API references for chat completions, responses and
//! embeddings, less everything that reads or writes state of the seller's account, multiplies the
//! price, or runs a tool on the provider's side.

use gatekeeper_filters::kernel::{
    Endpoint, Reject,
    json::{Kind, Value},
};

const CHAT: &[&str] = &[
    "model",
    "messages",
    "stream",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "reasoning_effort",
    "reasoning_format",
    "include_reasoning",
    "verbosity",
    "seed",
    "n",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "modalities",
    "service_tier",
    "prompt_cache_key",
    "user",
    "safety_identifier",
];

const RESPONSES: &[&str] = &[
    "model",
    "input",
    "instructions",
    "stream",
    "temperature",
    "top_p",
    "max_output_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "truncation",
    "include",
    "top_logprobs",
    "service_tier",
    "prompt_cache_key",
    "user",
    "safety_identifier",
];

const EMBEDDINGS: &[&str] = &["model", "input", "dimensions", "encoding_format", "user"];

/// Where the dialects put a thinking budget, name by name.
const THINKING_BUDGETS: &[&[&str]] = &[
    &["thinking", "budget_tokens"],
    &["extra_body", "thinking", "budget_tokens"],
    &["extra_body", "google", "thinking_config", "thinking_budget"],
    &["generationConfig", "thinkingConfig", "thinkingBudget"],
];

/// The thinking budget that a member carries. One that is no plain integer, such as Gemini's -1 for
/// "as the model likes", is none.
pub fn thinking_budget(name: &str, value: &Value<'_>) -> Option<u64> {
    let budgets = THINKING_BUDGETS.iter().filter_map(|path| {
        let (first, rest) = path.split_first()?;
        let found = (*first == name).then_some(*value)?;
        rest.iter().try_fold(found, |value, name| value.get(name))?.as_u64()
    });
    budgets.max()
}

/// The members of an endpoint that pass.
pub fn passes(endpoint: Endpoint, name: &[u8]) -> bool {
    let list = match endpoint {
        Endpoint::Chat => CHAT,
        Endpoint::Responses => RESPONSES,
        Endpoint::Embeddings => EMBEDDINGS,
    };
    list.iter().any(|known| known.as_bytes() == name)
}

/// Refuses what multiplies the cost of a message or can't be metered.
///
/// # Errors
/// 400 naming the field.
pub fn check(name: &str, value: &Value<'_>) -> Result<(), Reject> {
    match name {
        "n" | "best_of" if !value.is_null() && value.as_u64() != Some(1) => {
            refuse(name, "only one answer a request is served: leave it out or set it to 1")
        }
        "service_tier" if !value.is_null() && !is_one_of(value, &["auto", "default", "flex"]) => {
            refuse(name, "priority tiers are not served")
        }
        "web_search_options" if !value.is_null() => refuse(name, "web search is not served"),
        "audio" if !value.is_null() => refuse(name, "audio output is not served"),
        "background" if value.as_bool() == Some(true) => {
            refuse(name, "background answers are not served")
        }
        "modalities" if !is_list_of(value, |item| is_one_of(item, &["text"])) => {
            refuse(name, "only \"text\" is served")
        }
        "tools" if !is_list_of(value, is_own_tool) => {
            refuse(name, "only tools of type \"function\" or \"custom\" are served")
        }
        _ => Ok(()),
    }
}

fn refuse(name: &str, why: &str) -> Result<(), Reject> {
    Err(Reject::field(name, format!("\"{name}\": {why}.")))
}

fn is_one_of(value: &Value<'_>, allowed: &[&str]) -> bool {
    value.as_str().is_some_and(|text| allowed.contains(&&*text))
}

/// `null` counts as an empty list.
fn is_list_of(value: &Value<'_>, fits: impl Fn(&Value<'_>) -> bool) -> bool {
    value.is_null() || (value.kind() == Kind::Array && value.items().all(|item| fits(&item)))
}

/// A tool that the app runs itself.
fn is_own_tool(tool: &Value<'_>) -> bool {
    tool.get("type").is_some_and(|kind| is_one_of(&kind, &["function", "custom"]))
}
