//! `providers` and `budget`.

use super::types::{ANY_TEXT, DURATION, NAME, TEXTS};
use crate::config::field_type::{Field, FieldType, TextFormat, Variant};

pub const PROVIDERS: FieldType =
    FieldType::Map { key: TextFormat::Name, of: &FieldType::Record(PROVIDER), min: 1 };

const DIALECT: FieldType =
    FieldType::Choice(&[Variant::new("openai"), Variant::new("anthropic"), Variant::new("gemini")]);

const STRATEGY: FieldType = FieldType::Choice(&[
    Variant::new("round_robin"),
    Variant::new("least_busy"),
    Variant::new("fastest"),
]);

const KEYS: FieldType = FieldType::List { of: &FieldType::Record(KEY), min: 1 };

const PROVIDER: &[Field] = &[
    Field::new(
        "base_url",
        &FieldType::Text(TextFormat::BaseUrl),
        "The endpoint's path is appended: `https://api.groq.com/openai/v1`. `stand-in` is a \
         provider inside this process.",
    )
    .required(),
    Field::new(
        "dialect",
        &DIALECT,
        "The API the provider speaks. It serves apps that speak the same; `anthropic` also those of \
         OpenAI's chat, by translation.",
    )
    .or("openai"),
    Field::new(
        "strategy",
        &STRATEGY,
        "Which key is next. `round_robin`: in turn, by weight; `least_busy`: with the fewest open \
         requests for its weight; `fastest`: of two at random the one whose first output comes \
         sooner.",
    )
    .or("round_robin"),
    Field::new("allow_private", &FieldType::Bool, "Allows plain HTTP and private addresses (disables the SSRF guard for this URL).")
        .or("false"),
    Field::new("timeouts", &FieldType::Record(TIMEOUTS), "When an attempt is aborted."),
    Field::new("allow_fields", &TEXTS, "Request fields that are passed on in addition to the known ones."),
    Field::new(
        "output_cap_field",
        &ANY_TEXT,
        "Request field for an output cap where the app set none.",
    )
    .or("max_completion_tokens"),
    Field::new(
        "identify",
        &FieldType::Choice(&[Variant::new("on"), Variant::new("off")]),
        "`on`: each request carries the licence's hash in the provider's field for its users (`user`, \
         `safety_identifier`, `metadata.user_id`), so that one buyer's abuse is not the whole account's.",
    )
    .or("on"),
    IMAGE_TOKENS,
    Field::new(
        "keys",
        &KEYS,
        "Required, except for the stand-in, on loopback and with allow_private.",
    ),
    Field::new(
        "budget",
        &FieldType::Record(BUDGET),
        "Budget of this provider. When it is spent, its targets are skipped.",
    ),
];

pub const IMAGE_TOKENS: Field = Field::new(
    "image_tokens",
    &FieldType::Text(TextFormat::ImageTokens),
    "How images count: by the rule of `openai`, `anthropic` or `gemini` and the size of the image, or a \
     number of tokens for each. Default: the rule of the provider's dialect.",
);

const BUDGET: &[Field] =
    &[Field::new("day", &FieldType::Text(TextFormat::Dollars), "Dollars a day (UTC), like `$20`.")
        .required()];

pub const WHOLE_BUDGET: &[Field] = &[
    Field::new("day", &FieldType::Text(TextFormat::Dollars), "Dollars a day (UTC), like `$20`.").required(),
    Field::new(
        "waste_per_licence",
        &FieldType::Text(TextFormat::Percent),
        "The most of a day's budget that one licence may waste on answers that reach no app, such as \
         timeouts; above it requests get 429.",
    )
    .or("10%"),
];

const TIMEOUTS: &[Field] = &[
    Field::new("connect", &DURATION, "Until a connection is established, TLS included.").or("3s"),
    Field::new("first_byte", &DURATION, "Until the response head arrives.").or("120s"),
    Field::new(
        "first_token",
        &DURATION,
        "From the start of an attempt to the first output of a stream or to the end of a JSON answer; \
         after it the next target is tried.",
    )
    .or("120s"),
    Field::new("idle", &DURATION, "Between two chunks of an answer.").or("60s"),
    Field::new("total", &DURATION, "For the whole answer.").or("600s"),
];

const KEY: &[Field] = &[
    Field::new("id", &NAME, "Its name in status, metrics and logs; unique at its provider.")
        .required(),
    Field::new(
        "secret",
        &FieldType::Text(TextFormat::Secret),
        "`sealed:v1:...` (see `gatekeeper seal`), `env:NAME` or `file:PATH`.",
    )
    .required(),
    Field::new(
        "group",
        &NAME,
        "Keys of one account share its limits. Default: a group of its own.",
    ),
    Field::new("weight", &FieldType::Int { min: 1, max: 1000 }, "Its share of the requests.")
        .or("1"),
    Field::new(
        "state",
        &FieldType::Choice(&[Variant::new("on"), Variant::new("off")]),
        "`off` keeps the key from being used.",
    )
    .or("on"),
];
