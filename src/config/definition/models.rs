//! `models` and `prices`.

use super::{
    providers::IMAGE_TOKENS,
    types::{COUNT, DURATION, TARGET},
};
use crate::config::field_type::{Field, FieldType, TextFormat, Variant};

pub const MODELS: FieldType = FieldType::Map {
    key: TextFormat::Model,
    of: &FieldType::Either(&[
        TARGETS,
        FieldType::Record(MODEL),
        FieldType::Text(TextFormat::Model),
    ]),
    min: 1,
};

const TARGETS: FieldType = FieldType::List { of: &TARGET, min: 1 };

const MODEL: &[Field] = &[
    Field::new(
        "targets",
        &TARGETS,
        "`provider/model`: the first is asked first, the rest are fallbacks.",
    ),
    Field::new(
        "accepts",
        &FieldType::List { of: &FieldType::Choice(MEDIA), min: 0 },
        "Content parts that the targets take beside text and images.",
    ),
    Field::new(
        "smart",
        &FieldType::Record(SMART),
        "Two other models: each request goes to one of them, by its difficulty. Replaces `targets`.",
    ),
    Field::new(
        "delivery",
        &FieldType::Choice(&[Variant::new("stream"), Variant::new("whole")]),
        "`whole`: a stream is read to its end before it is sent, so that another key or target can \
         replace even an answer that breaks in the middle.",
    )
    .or("stream"),
    Field::new(
        "on_empty",
        &FieldType::Choice(&[Variant::new("retry"), Variant::new("deliver")]),
        "Handling of an answer that ends normally with 0 tokens and no text, or with a tool call that the \
         provider could not parse: `retry` retries once before the app sees it, `deliver` passes it on.",
    )
    .or("retry"),
    Field::new(
        "timeouts",
        &FieldType::Record(MODEL_TIMEOUTS),
        "Timeouts of this model. Default, one by one: those of the provider.",
    ),
    Field::new(
        "sticky",
        &FieldType::Bool,
        "Keeps each conversation on its target and account, known by its first messages where the app \
         sends no `x-conversation-id`: the provider's prompt cache stays warm.",
    )
    .or("false"),
    Field::new(
        "vocabulary",
        &FieldType::Choice(&[Variant::new("o200k"), Variant::new("cl100k")]),
        "The vocabulary that estimates go by. Default: by the names of the targets' models; the larger \
         estimate where a name says nothing.",
    ),
    IMAGE_TOKENS,
    Field::new(
        "file_tokens",
        &COUNT,
        "Tokens reserved for a KiB of a file, such as a PDF, where `accepts` lists it.",
    )
    .or("64"),
    Field::new(
        "audio_tokens",
        &COUNT,
        "Tokens reserved for a KiB of audio, where `accepts` lists it.",
    )
    .or("4"),
];

const MODEL_TIMEOUTS: &[Field] = &[
    Field::new("first_byte", &DURATION, "Until the response head arrives."),
    Field::new(
        "first_token",
        &DURATION,
        "From the start of an attempt to the first output of a stream or to the end of a JSON answer; \
         after it the next target is tried.",
    ),
    Field::new("idle", &DURATION, "Between two chunks of an answer."),
    Field::new("total", &DURATION, "For all attempts together."),
];

const SMART: &[Field] = &[
    Field::new("simple", &FieldType::Text(TextFormat::Model), "The model for easy requests.").required(),
    Field::new("complex", &FieldType::Text(TextFormat::Model), "The model for hard requests.").required(),
    Field::new(
        "threshold",
        &FieldType::Fraction,
        "Requests that score this or more are hard. A higher value saves more and uses the better model less.",
    )
    .or("0.5"),
];

const MEDIA: &[Variant] =
    &[Variant::new("input_audio"), Variant::new("file"), Variant::new("video_url")];

pub const PRICES: FieldType =
    FieldType::Map { key: TextFormat::Target, of: &FieldType::Record(PRICE), min: 0 };

const PRICE: &[Field] = &[
    Field::new("input", &FieldType::TokenPrice, "Input tokens.").required(),
    Field::new("output", &FieldType::TokenPrice, "Output tokens.").required(),
    Field::new("cached", &FieldType::TokenPrice, "Cached input tokens. Default: as input."),
    Field::new(
        "cache_write",
        &FieldType::TokenPrice,
        "Input tokens written to the provider's cache. Default: 1.25 times input in Anthropic's dialect, \
         as input in others.",
    ),
    Field::new(
        "cache_write_1h",
        &FieldType::TokenPrice,
        "The same, kept for an hour. Default: twice input in Anthropic's dialect, as input in others.",
    ),
];
