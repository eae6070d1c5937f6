//! `plans`.

use super::types::{ANY_TEXT, COUNT, DURATION, LIMIT, LINK};
use crate::config::field_type::{Field, FieldType, TextFormat, Variant};

pub const PLANS: FieldType =
    FieldType::Map { key: TextFormat::Name, of: &FieldType::Record(PLAN), min: 1 };

const CONCURRENCY: FieldType = FieldType::Either(&[
    FieldType::Int { min: 1, max: u32::MAX as u64 },
    FieldType::Choice(&[Variant::new("unlimited")]),
]);

const PLAN: &[Field] = &[
    Field::new("messages", &LIMIT, "Requests that reach a provider. Default: unlimited."),
    Field::new("tokens", &LIMIT, "Input and output tokens together. Default: unlimited."),
    Field::new("rate", &LIMIT, "Requests of any kind. Default: unlimited."),
    Field::new(
        "concurrency",
        &CONCURRENCY,
        "Open requests at one time. At the default of 16 a request waits up to 5 s for a place before it is \
         refused; at a number written here it is refused at once. `unlimited` lifts the limit.",
    ),
    Field::new(
        "models",
        &FieldType::List { of: &ANY_TEXT, min: 1 },
        "Public model names, or `*` for all. Required, unless `prompts` is set.",
    ),
    Field::new(
        "prompts",
        &FieldType::List { of: &ANY_TEXT, min: 1 },
        "Prompts that may be asked, or `*` for all. Their models need not be among `models`.",
    ),
    Field::new(
        "prompts_only",
        &FieldType::Bool,
        "Nothing but prompts may be asked: other requests get 403 `prompt_required`.",
    )
    .or("false"),
    Field::new(
        "conversation",
        &FieldType::Record(CONVERSATION),
        "Limits of one conversation. Requests must name theirs (`x-conversation-id`).",
    ),
    Field::new(
        "idempotency",
        &DURATION,
        "How long a request that comes again, with the same `x-message-id` and body, gets the same answer without a \
         provider or a charge. In memory of one gateway; answers up to 64 KiB. At most `24h`. Default: not at all.",
    ),
    Field::new(
        "max_output_tokens",
        &COUNT,
        "Caps each answer. Default: 4096 where `tokens` is set, else none.",
    ),
    Field::new("min_output_tokens", &COUNT, "An answer's cap never shrinks below this.").or("256"),
    Field::new(
        "max_input_tokens",
        &COUNT,
        "Requests with more input are refused. Default: unlimited.",
    ),
    Field::new("upgrade_url", &LINK, "Shown when a limit is reached. Default: `licenses.buy_url`."),
    Field::new(
        "devices",
        &FieldType::Choice(&[Variant::new("optional"), Variant::new("required")]),
        "`required`: requests must carry the id of an activated device (`x-instance-id`).",
    )
    .or("optional"),
    Field::new(
        "max_devices",
        &COUNT,
        "Devices of one licence, where its shop has no list of devices with a limit of its own.",
    ),
    Field::new(
        "price",
        &FieldType::Text(TextFormat::Price),
        "What the plan costs its buyer, like `$9/month` or `$90/year`; for `gatekeeper usage`.",
    ),
    Field::new(
        "on_disconnect",
        &FieldType::Choice(&[Variant::new("cut"), Variant::new("drain")]),
        "When the app leaves in the middle of an answer. `cut`: the provider is left at once, what \
         came is charged. `drain`: the answer is read on for the provider's own count, 30 s and \
         1 MiB at most, 32 answers at one time.",
    )
    .or("cut"),
];

const CONVERSATION: &[Field] = &[
    Field::new("rate", &LIMIT, "Messages a minute or hour. Above it 429 `conversation_limited`."),
    Field::new("messages", &LIMIT, "Messages an hour or day. Above it 403 `conversation_limited`."),
    Field::new(
        "repeats",
        &FieldType::Int { min: 1, max: 250 },
        "How often the user's last turn may be the same within 10 minutes. Requests of one `x-message-id` count once.",
    ),
];
