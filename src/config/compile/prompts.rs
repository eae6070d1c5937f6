//! Prompts: system texts and schemas read from their files, templates parsed, names held against each other.

use std::{fs, io::Read, path::Path, sync::Arc};

use gatekeeper_filters::kernel::{
    ModelSet, Models, Plan,
    json::{JsonKind, Reader},
};

use super::field_reader::FieldReader;
use crate::{
    config::{
        diagnostics::{Diagnostics, did_you_mean},
        scalars,
        yaml::{MapEntry, Node, NodeKind},
    },
    prompts::{
        AnswerSchema, PREFIX, Prompt, PromptTool, Prompts,
        history::{self, History},
        kept::Kept,
        template::Template,
        variables::{self, Variable, VariableKind},
    },
};

pub fn compile(
    root: &FieldReader<'_>,
    models: &Models,
    plans: &[Arc<Plan>],
    report: &mut Diagnostics,
) -> Prompts {
    let shape = root.items_of("prompts");
    let mut prompts = Prompts::new();
    for entry in root.node("prompts").map(Node::entries).unwrap_or_default() {
        let view = FieldReader::item(&entry.value, shape, format!("prompts.{}", entry.key));
        if let Some(prompt) = prompt(&entry.key, &view, models, report) {
            prompts.insert(prompt.name.clone(), Arc::new(prompt));
        }
    }
    check_names(root, report);
    check_plans(root, report);
    let is_opened = |name: &str| plans.iter().any(|plan| plan.prompts.allows(name));
    for entry in root.node("prompts").map(Node::entries).unwrap_or_default() {
        if !is_opened(&entry.key) {
            let message = "no plan opens it: list it under `prompts` of a plan";
            report.warn(entry.key_at, format!("prompts.{}", entry.key), message);
        }
    }
    prompts
}

/// The prompts that a plan allows, by name; unknown names are reported by [`compile`].
pub fn opened(plan: &FieldReader<'_>, report: &mut Diagnostics) -> ModelSet {
    let names = plan.texts("prompts");
    let is_node = |name: &str| plan.node(name).is_some();
    if !is_node("models") && !is_node("prompts") {
        let message = "missing: Public model names, or `*` for all.";
        report.problem(plan.at("models"), plan.path("models"), message);
    }
    if plan.bool("prompts_only") && !is_node("prompts") {
        let message = "nothing could be asked: list the prompts of the plan under `prompts`";
        report.problem(plan.at("prompts_only"), plan.path("prompts_only"), message);
    }
    if plan.bool("prompts_only") && is_node("models") {
        let message = "opens nothing beside `prompts_only: true`";
        report.warn(plan.at("models"), plan.path("models"), message);
    }
    match names.contains(&"*") {
        true => ModelSet::All,
        false => ModelSet::Only(names.into_iter().map(Arc::from).collect()),
    }
}

/// What plans open must be there.
fn check_plans(root: &FieldReader<'_>, report: &mut Diagnostics) {
    let known: Vec<&str> = names(root, "prompts").map(|entry| &*entry.key).collect();
    let shape = root.items_of("plans");
    for entry in names(root, "plans") {
        let view = FieldReader::item(&entry.value, shape, format!("plans.{}", entry.key));
        let path = view.path("prompts");
        let list = view.node("prompts").map(Node::items).unwrap_or_default();
        for (index, node) in list.iter().enumerate() {
            let Some(name) = node.text().filter(|name| *name != "*") else { continue };
            if !known.contains(&name) {
                let near = did_you_mean(name, known.iter().copied());
                report.problem(
                    node.at,
                    format!("{path}[{index}]"),
                    format!("unknown prompt `{name}`{near}"),
                );
            }
        }
    }
}

/// Apps name prompts where models stand.
fn check_names(root: &FieldReader<'_>, report: &mut Diagnostics) {
    for entry in names(root, "models").filter(|entry| entry.key.starts_with(PREFIX)) {
        let message = format!("names that begin with `{PREFIX}` are those of prompts");
        report.problem(entry.key_at, format!("models.{}", entry.key), message);
    }
}

fn names<'a>(root: &FieldReader<'a>, field: &str) -> impl Iterator<Item = &'a MapEntry> {
    root.node(field).map(Node::entries).unwrap_or_default().iter()
}

fn prompt(
    name: &str,
    view: &FieldReader<'_>,
    models: &Models,
    report: &mut Diagnostics,
) -> Option<Prompt> {
    let (variables, history) = input(view, report);
    let system = view.node("system").and_then(|node| text(node, &view.path("system"), report));
    let system = system.and_then(|system| {
        let history = history.as_ref().map(|history: &History| history.name.as_str());
        template(&system, view, &variables, history, report)
    });
    let schema = schema(view, report);
    let tools = tools(view, report);
    let model = view.text("model")?;
    let Some(known) = models.get(model) else {
        let near = did_you_mean(model, models.keys().map(|name| &**name));
        report.problem(
            view.at("model"),
            view.path("model"),
            format!("unknown model `{model}`{near}"),
        );
        return None;
    };
    Some(Prompt {
        name: name.into(),
        public_name: format!("{PREFIX}{name}").into(),
        model: known.name.clone(),
        system: system?,
        variables,
        history,
        temperature: view.text("temperature").and_then(temperature),
        max_output_tokens: view.int("max_output_tokens"),
        schema,
        tools,
        kept: Kept::default(),
    })
}

fn template(
    text: &str,
    view: &FieldReader<'_>,
    variables: &[Variable],
    history: Option<&str>,
    report: &mut Diagnostics,
) -> Option<Template> {
    let unknown = match Template::parse(text, variables) {
        Ok(template) => return Some(template),
        Err(unknown) => unknown,
    };
    let message = if history == Some(&*unknown) {
        format!(
            "`{{{{{unknown}}}}}` stands for messages, which go to the model as turns: leave it out"
        )
    } else {
        let near = did_you_mean(&unknown, variables.iter().map(|known| &*known.name));
        format!("`{{{{{unknown}}}}}` is no variable of `input`{near}")
    };
    report.problem(view.at("system"), view.path("system"), message);
    None
}

fn input(view: &FieldReader<'_>, report: &mut Diagnostics) -> (Vec<Variable>, Option<History>) {
    let (shape, path) = (view.items_of("input"), view.path("input"));
    let (mut variables, mut history) = (Vec::new(), None);
    for entry in view.node("input").map(Node::entries).unwrap_or_default() {
        let item = FieldReader::item(&entry.value, shape, format!("{path}.{}", entry.key));
        if item.node("turns").is_none() {
            variables.extend(variable(&entry.key, &item, report));
            continue;
        }
        if history.replace(messages(&entry.key, &item, report)).is_some() {
            let message = "one of them says already what messages apps may send";
            report.problem(entry.key_at, format!("{path}.{}", entry.key), message);
        }
    }
    (variables, history)
}

fn variable(name: &str, item: &FieldReader<'_>, report: &mut Diagnostics) -> Option<Variable> {
    if item.node("roles").is_some() {
        report.problem(item.at("roles"), item.path("roles"), "goes with `turns` only");
    }
    let words: Vec<String> = item.texts("one_of").into_iter().map(str::to_owned).collect();
    let max = item.int("max").unwrap_or(variables::MOST);
    let kind = match (words.is_empty(), item.bool("trusted")) {
        (true, false) => VariableKind::Data { max },
        (true, true) => VariableKind::Trusted { max },
        (false, trusted) => {
            for other in ["max", "trusted"] {
                if item.node(other).is_some() && (other != "trusted" || trusted) {
                    let message = "has no effect beside `one_of`";
                    report.problem(item.at(other), item.path(other), message);
                }
            }
            VariableKind::OneOf(words)
        }
    };
    Some(Variable { name: name.to_owned(), kind, is_required: item.bool("required") })
}

fn messages(name: &str, item: &FieldReader<'_>, report: &mut Diagnostics) -> History {
    for other in ["required", "one_of", "trusted"] {
        if item.node(other).is_some() {
            report.problem(item.at(other), item.path(other), "has no effect beside `turns`");
        }
    }
    let roles = item.texts("roles");
    History {
        name: name.to_owned(),
        turns: item.int("turns").unwrap_or(history::TURNS),
        max: item.int("max").unwrap_or(history::MOST),
        has_user: roles.is_empty() || roles.contains(&"user"),
        has_assistant: roles.is_empty() || roles.contains(&"assistant"),
    }
}

fn schema(view: &FieldReader<'_>, report: &mut Diagnostics) -> Option<AnswerSchema> {
    let (node, path) = (view.node("response_format")?, view.path("response_format"));
    if node.text().is_some_and(|text| !text.starts_with(FILE)) {
        report.problem(node.at, path, "expected `file:PATH` of a JSON schema");
        return None;
    }
    let json = object(&text(node, &path, report)?, node, &path, report)?;
    let mut reader = Reader::strict();
    let root = reader.parse(json.as_bytes()).ok()?;
    let closed = root.get("additionalProperties").and_then(|other| other.as_bool());
    let is_strict = closed == Some(false);
    Some(AnswerSchema { is_strict, json })
}

/// A text that is one JSON object.
fn object(text: &str, node: &Node, path: &str, report: &mut Diagnostics) -> Option<Box<str>> {
    let mut reader = Reader::strict();
    match reader.parse(text.as_bytes()) {
        Ok(root) if root.kind() == JsonKind::Object => Some(text.trim().into()),
        Ok(_) => {
            report.problem(node.at, path, "a JSON schema is an object");
            None
        }
        Err(invalid) => {
            report.problem(node.at, path, format!("not valid JSON: {invalid}"));
            None
        }
    }
}

fn tools(view: &FieldReader<'_>, report: &mut Diagnostics) -> Vec<PromptTool> {
    let (shape, path) = (view.items_of("tools"), view.path("tools"));
    let list = view.node("tools").map(Node::items).unwrap_or_default();
    let mut tools = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let item = FieldReader::item(node, shape, format!("{path}[{index}]"));
        let parameters = match item.node("parameters") {
            None => Some(r#"{"type":"object","properties":{}}"#.into()),
            Some(node) => match node.kind {
                NodeKind::Scalar { .. } => {
                    let path = item.path("parameters");
                    text(node, &path, report).and_then(|text| object(&text, node, &path, report))
                }
                _ => {
                    let json = node.to_json().to_string();
                    object(&json, node, &item.path("parameters"), report)
                }
            },
        };
        let (Some(name), Some(parameters)) = (item.text("name"), parameters) else { continue };
        let description = item.text("description").unwrap_or_default().to_owned();
        tools.push(PromptTool { name: name.to_owned(), description, parameters });
    }
    tools
}

/// As JSON writes it: `.4` and `00.4` are no numbers there.
fn temperature(text: &str) -> Option<Box<str>> {
    let hundredths = scalars::temperature(text).ok()?;
    Some((hundredths as f64 / 100.0).to_string().into())
}

/// Bytes of a text or a schema.
const MAX_FILE: u64 = 1 << 20;

const FILE: &str = "file:";

/// The text that stands there, or in the file it names.
fn text(node: &Node, path: &str, report: &mut Diagnostics) -> Option<String> {
    let text = node.text()?;
    let Some(file) = text.strip_prefix(FILE) else { return Some(text.to_owned()) };
    let file = Path::new(file);
    report.files.note(file);
    match read(file) {
        Ok(text) if text.trim().is_empty() => {
            report.problem(node.at, path, format!("{}: empty", file.display()));
            None
        }
        Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(why) => {
            report.problem(node.at, path, format!("{}: {why}", file.display()));
            None
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    let told = fs::metadata(file).map_err(|error| error.to_string())?;
    if !told.is_file() {
        return Err("not a file".into());
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).map_err(|error| error.to_string())?;
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("larger than 1 MiB".into());
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".into())
}
