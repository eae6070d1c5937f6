//! The pages in `docs/configuration`, generated from the declarations, so that they can't differ.

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use super::{
    definition::FILE,
    field_type::{Field, FieldType},
};

const WIDTH: usize = 100;

/// Path below `docs` → text.
fn pages() -> BTreeMap<String, String> {
    let mut index = String::from(
        "# Configuration\n\n\
         One YAML file. `gatekeeper check -c FILE` reports every problem at once, each with line,\n\
         column and field; `conf/schema.json` tells an editor the same fields. These pages are\n\
         generated from the declarations in `src/config` (`make docs`), one for each section:\n\n\
         | section | |\n|---|---|\n",
    );
    let mut pages = BTreeMap::new();
    for field in FILE.fields() {
        let required = if field.required { " Required." } else { "" };
        let row =
            format!("| [`{0}`](configuration/{0}.md) | {1}{required} |\n", field.name, field.doc);
        index.push_str(&row);
        pages.insert(format!("configuration/{}.md", field.name), page(field));
    }
    index.push_str(
        "\nHow the files in `conf` are used is in [conf/README.md](../conf/README.md). A duration is a\n\
         number with `ms`, `s`, `m`, `h` or `d`; a size one with `B`, `KiB`, `MiB` or `GiB`; a limit\n\
         is `N/minute`, `N/hour`, `N/day` or `N/month`, by the calendar in UTC.\n",
    );
    pages.insert("configuration.md".into(), index);
    pages
}

fn page(field: &Field) -> String {
    let mut page = format!("# `{}`\n\n", field.name);
    item(&mut page, "", field);
    page.push_str("\nGenerated; [all sections](../configuration.md).\n");
    nested(&mut page, field.name, field.shape);
    page
}

/// A heading and the fields of each record at `path` and below it.
fn nested(page: &mut String, path: &str, shape: &FieldType) {
    match shape {
        FieldType::Record(_) | FieldType::OneOf(_) => {
            let fields = shape.fields();
            page.push_str(&format!("\n## `{path}`\n\n"));
            if matches!(shape, FieldType::OneOf(_)) {
                page.push_str("Exactly one of:\n\n");
            }
            for field in fields.iter().filter(|field| field.removed.is_none()) {
                item(page, "- ", field);
            }
            for field in fields {
                nested(page, &format!("{path}.{}", field.name), field.shape);
            }
        }
        FieldType::List { of, .. } => nested(page, &format!("{path}[]"), of),
        FieldType::Map { of, .. } => nested(page, &format!("{path}.NAME"), of),
        FieldType::Either(shapes) => shapes.iter().for_each(|shape| nested(page, path, shape)),
        _ => {}
    }
}

fn item(page: &mut String, mark: &str, field: &Field) {
    let mut text = format!("{mark}`{}`: {}", field.name, type_of(field.shape));
    if field.required {
        text.push_str(", required");
    }
    if let Some(default) = field.default {
        text.push_str(&format!(", default `{default}`"));
    }
    if let Some((other, variant)) = field.with {
        text.push_str(&format!(", only with `{other}: {variant}`"));
    }
    wrap(page, &format!("{text}. {}", field.doc), if mark.is_empty() { "" } else { "  " });
}

fn type_of(shape: &FieldType) -> String {
    match shape {
        FieldType::List { of, .. } if of.is_compound() => "a list of mappings".into(),
        FieldType::List { of, .. } => format!("a list of: {}", type_of(of)),
        FieldType::Either(shapes) => shapes.iter().map(type_of).collect::<Vec<_>>().join(" or "),
        _ => shape.expected(),
    }
}

fn wrap(page: &mut String, text: &str, indent: &str) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            page.push('\n');
            page.push_str(indent);
            column = indent.len();
        } else if column > 0 {
            page.push(' ');
            column += 1;
        }
        page.push_str(word);
        column += length;
    }
    page.push('\n');
}

#[test]
fn the_reference_is_made_of_the_declarations() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
    let write = env::var_os("DOCS_WRITE").is_some();
    let pages = pages();
    for (name, text) in &pages {
        if write {
            fs::create_dir_all(docs.join("configuration")).unwrap();
            fs::write(docs.join(name), text).unwrap();
        }
        let committed = fs::read_to_string(docs.join(name)).unwrap_or_default();
        assert!(committed == *text, "docs/{name} is stale: run `make docs`");
    }
    for entry in fs::read_dir(docs.join("configuration")).unwrap() {
        let name = format!("configuration/{}", entry.unwrap().file_name().display());
        assert!(pages.contains_key(&name), "docs/{name} belongs to no section: delete it");
    }
}
