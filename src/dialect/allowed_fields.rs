//! Which members of a body may reach a provider, and which requests would cost more than a message.
//!
//! The lists are those of the providers' API references for chat completions, responses and
//! embeddings, less everything that reads or writes state of the seller's account, multiplies the
//! price, or runs a tool on the provider's side.

use gatekeeper_filters::kernel::{
    Endpoint, Rejection,
    json::{JsonKind, Reader, Value},
};

/// What is kept out, and why, where that is no matter of course:
/// - `prompt_cache_options` makes the provider write to its cache, which costs more than the input itself and
///   shows in no limit of a plan.
/// - `prompt_cache_retention` keeps buyers' text in the seller's account for a day.
/// - `moderation` has another model read the request, and its verdicts counted in the seller's account.
///
/// `prompt_cache_key` passes: it only marks requests with a common prefix, and makes input cheaper.
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

/// Anthropic's. Without `service_tier`, `speed` and `inference_geo`, which change the price; without
/// `metadata`, which becomes ours.
const MESSAGES: &[&str] = &[
    "model",
    "messages",
    "system",
    "max_tokens",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "cache_control",
];

/// Gemini's; the model is in the path. `toolConfig` passes with `functionCallingConfig` only, which names
/// the app's functions that must be called; the rest of it concerns tools that Google hosts.
const GENERATE: &[&str] =
    &["contents", "systemInstruction", "tools", "toolConfig", "safetySettings", "generationConfig"];

/// What may stand in `generationConfig`. The rest multiplies the price, asks for media, or has another
/// spelling of something that is bounded here.
const GENERATION_CONFIG: &[&str] = &[
    "temperature",
    "topP",
    "topK",
    "maxOutputTokens",
    "stopSequences",
    "seed",
    "presencePenalty",
    "frequencyPenalty",
    "responseMimeType",
    "responseSchema",
    "responseJsonSchema",
    "thinkingConfig",
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
        Endpoint::Messages => MESSAGES,
        Endpoint::Generate => GENERATE,
    };
    list.iter().any(|known| known.as_bytes() == name)
}

/// Removing the member has the effect that its value asks for.
pub fn changes_nothing(value: &Value<'_>) -> bool {
    value.is_null() || value.as_bool() == Some(false)
}

/// Members that are taken out although they are listed nowhere, because they are read here.
pub fn is_read_here(endpoint: Endpoint, name: &str) -> bool {
    matches!((endpoint, name), (Endpoint::Chat, "stream_options"))
}

/// Refuses what multiplies the cost of a message or can't be metered.
///
/// # Errors
/// 400 naming the field.
pub fn check(endpoint: Endpoint, name: &str, value: &Value<'_>) -> Result<(), Rejection> {
    match endpoint {
        Endpoint::Messages => check_messages(name, value),
        Endpoint::Generate => check_generate(name, value),
        Endpoint::Chat | Endpoint::Responses | Endpoint::Embeddings => check_openai(name, value),
    }
}

fn check_messages(name: &str, value: &Value<'_>) -> Result<(), Rejection> {
    match name {
        "tools" if !is_list_of(value, is_anthropic_own_tool) => {
            refuse(name, "only tools that the app runs itself are served")
        }
        "mcp_servers" | "container" if !value.is_null() => {
            refuse(name, "what runs on the provider's side is not served")
        }
        _ => Ok(()),
    }
}

/// A tool without a type, or of type `custom`, is the app's; all others are hosted.
fn is_anthropic_own_tool(tool: &Value<'_>) -> bool {
    let kind = tool.get("type");
    tool.kind() == JsonKind::Object
        && kind.is_none_or(|kind| kind.is_null() || is_one_of(&kind, &["custom"]))
}

/// Google takes both spellings; what is bounded here has one.
const CAMEL_CASE: &str = "write field names in camelCase";

fn check_generate(name: &str, value: &Value<'_>) -> Result<(), Rejection> {
    match name {
        _ if name.contains('_') => refuse(name, CAMEL_CASE),
        "tools" if !is_list_of(value, is_gemini_own_tool) => {
            refuse(name, "only functionDeclarations are served")
        }
        "cachedContent" if !value.is_null() => {
            refuse(name, "content that is kept at the provider is not served")
        }
        "serviceTier" if !value.is_null() && !is_one_of(value, &["standard", "flex"]) => {
            refuse(name, "priority tiers are not served")
        }
        "toolConfig" if !is_of_functions(value) => {
            refuse(name, "only functionCallingConfig is served")
        }
        "generationConfig" => check_generation_config(value),
        "safetySettings" if !value.is_null() && !is_list_of(value, is_strict_setting) => refuse(
            name,
            "a threshold may be \"BLOCK_MEDIUM_AND_ABOVE\" or \"BLOCK_LOW_AND_ABOVE\" only",
        ),
        _ => Ok(()),
    }
}

/// No laxer than what models have by default: what a buyer provokes counts against the seller's account
/// (<https://ai.google.dev/gemini-api/docs/safety-settings>).
fn is_strict_setting(setting: &Value<'_>) -> bool {
    const STRICT: &[&str] =
        &["BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE", "HARM_BLOCK_THRESHOLD_UNSPECIFIED"];
    setting.kind() == JsonKind::Object
        && setting.members().all(|(name, value)| match &*name.decoded() {
            "threshold" => is_one_of(&value, STRICT),
            name => name == "category",
        })
}

fn is_of_functions(config: &Value<'_>) -> bool {
    let mut members = config.members();
    config.is_null()
        || (config.kind() == JsonKind::Object
            && members.all(|(name, _)| name.decoded() == "functionCallingConfig"))
}

fn is_gemini_own_tool(tool: &Value<'_>) -> bool {
    tool.kind() == JsonKind::Object
        && tool.members().all(|(name, _)| name.decoded() == "functionDeclarations")
}

fn check_generation_config(config: &Value<'_>) -> Result<(), Rejection> {
    if !matches!(config.kind(), JsonKind::Object | JsonKind::Null) {
        return refuse("generationConfig", "it must be an object");
    }
    for (name, value) in config.members() {
        match &*name.decoded() {
            "candidateCount" if !value.is_null() && value.as_u64() != Some(1) => {
                return refuse("generationConfig.candidateCount", "only one answer is served");
            }
            "responseModalities" if !is_list_of(&value, |item| is_one_of(item, &["TEXT"])) => {
                return refuse("generationConfig.responseModalities", "only \"TEXT\" is served");
            }
            name if name.contains('_') => return refuse("generationConfig", CAMEL_CASE),
            "thinkingConfig" if value.members().any(|(name, _)| name.decoded().contains('_')) => {
                return refuse("generationConfig.thinkingConfig", CAMEL_CASE);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The config without the members that do not pass, if there are any; their names go to `dropped`.
pub fn generation_config(json: &[u8], dropped: &mut dyn FnMut(&str)) -> Option<String> {
    let mut reader = Reader::lenient();
    let config = reader.parse(json).ok()?;
    let passes = |name: &str| GENERATION_CONFIG.contains(&name);
    if config.members().all(|(name, _)| passes(&name.decoded())) {
        return None;
    }
    for (name, value) in config.members() {
        if !passes(&name.decoded()) && !changes_nothing(&value) {
            dropped(&format!("generationConfig.{}", name.decoded()));
        }
    }
    let kept: Vec<String> = config
        .members()
        .filter(|(name, _)| passes(&name.decoded()))
        .map(|(name, value)| {
            format!("\"{}\":{}", name.decoded(), String::from_utf8_lossy(value.raw()))
        })
        .collect();
    Some(format!("{{{}}}", kept.join(",")))
}

fn check_openai(name: &str, value: &Value<'_>) -> Result<(), Rejection> {
    match name {
        "previous_response_id" | "conversation" if !value.is_null() => refuse(
            name,
            "no conversation is kept here, so it leads nowhere: send the whole conversation as \"input\" each time",
        ),
        "prompt" if !value.is_null() => refuse(
            name,
            "prompts that are kept at a provider are not served: send the text itself, as \"instructions\" and \
             \"input\" or as \"messages\"",
        ),
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

fn refuse(name: &str, why: &str) -> Result<(), Rejection> {
    let name = Rejection::shown(name);
    Err(Rejection::field(&name, format!("\"{name}\": {why}.")))
}

fn is_one_of(value: &Value<'_>, allowed: &[&str]) -> bool {
    value.as_str().is_some_and(|text| allowed.contains(&&*text))
}

/// `null` counts as an empty list.
fn is_list_of(value: &Value<'_>, fits: impl Fn(&Value<'_>) -> bool) -> bool {
    value.is_null() || (value.kind() == JsonKind::Array && value.items().all(|item| fits(&item)))
}

/// A tool that the app runs itself.
fn is_own_tool(tool: &Value<'_>) -> bool {
    tool.get("type").is_some_and(|kind| is_one_of(&kind, &["function", "custom"]))
}
