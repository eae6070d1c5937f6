//! `prompts`.

use super::types::{ANY_TEXT, COUNT, NAME};
use crate::config::field_type::{Field, FieldType, TextFormat, Variant};

pub const PROMPTS: FieldType =
    FieldType::Map { key: TextFormat::Name, of: &FieldType::Record(PROMPT), min: 0 };

const PROMPT: &[Field] = &[
    Field::new("model", &FieldType::Text(TextFormat::Model), "The model that answers.").required(),
    Field::new(
        "system",
        &ANY_TEXT,
        "The system text, or `file:PATH`, which is read again when it is saved. `{{name}}` stands for a variable.",
    )
    .required(),
    Field::new(
        "input",
        &FieldType::Map { key: TextFormat::Name, of: &FieldType::Record(INPUT), min: 0 },
        "Variables by name. One with `turns` is no variable: it says what messages apps may send.",
    ),
    Field::new("temperature", &FieldType::Temperature, "From 0 to 2. Default: the provider's."),
    Field::new(
        "max_output_tokens",
        &COUNT,
        "Caps each answer. Apps may ask for less, not for more. Default: the plan's.",
    ),
    Field::new(
        "response_format",
        &ANY_TEXT,
        "`file:PATH` of a JSON schema that answers must fit. With `additionalProperties: false` providers are asked \
         to hold the model to it strictly.",
    ),
    Field::new(
        "tools",
        &FieldType::Either(&[
            FieldType::List { of: &FieldType::Record(TOOL), min: 1 },
            FieldType::Choice(&[Variant::new("none")]),
        ]),
        "Functions that the app runs when the model calls them. Apps can send none of their own.",
    )
    .or("none"),
];

const INPUT: &[Field] = &[
    Field::new(
        "max",
        &COUNT,
        "Most characters of a value; of messages, all together. Default: 4000; of messages 20000.",
    ),
    Field::new("required", &FieldType::Bool, "A request without it is refused.").or("false"),
    Field::new(
        "one_of",
        &FieldType::List { of: &ANY_TEXT, min: 1 },
        "The values it may have, put into the system text as they are. The first stands where none is sent.",
    ),
    Field::new(
        "trusted",
        &FieldType::Bool,
        "The value is put into the system text as it is: every licence holder can write anything there.",
    )
    .or("false"),
    Field::new("turns", &COUNT, "Messages that apps may send, at most."),
    Field::new(
        "roles",
        &FieldType::List {
            of: &FieldType::Choice(&[Variant::new("user"), Variant::new("assistant")]),
            min: 1,
        },
        "Whose messages. Default: user, assistant.",
    ),
];

const TOOL: &[Field] = &[
    Field::new("name", &NAME, "The name of the function.").required(),
    Field::new("description", &ANY_TEXT, "What it does, for the model."),
    Field::new(
        "parameters",
        &FieldType::Anything,
        "The JSON schema of its arguments, or `file:PATH` of one. Default: no arguments.",
    ),
];
