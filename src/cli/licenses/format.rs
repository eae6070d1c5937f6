//! An answer about a licence in plain words.

use std::{fmt::Write as _, io};

use serde_json::Value;

/// What was done, then what the licence has now.
pub fn of(answer: &Value) -> String {
    let mut text = String::new();
    if let Some(done) = answer.get("done") {
        let _ = writeln!(text, "{}\n", done_words(done, answer));
    }
    let mut line = |name: &str, words: String| {
        let _ = writeln!(text, "{name:<10} {words}");
    };
    line("Licence", word(&answer["license"]));
    let source = word(&answer["source"]);
    line("Plan", format!("{} ({source})", or(&answer["plan"], "none")));
    line("Status", status(answer));
    if answer["moved"].is_object() {
        line("Moved", moved(&answer["moved"]));
    }
    match (&answer["limits"], answer["store"] == "down") {
        (_, true) => line("Used", "unknown: the shared store does not answer".into()),
        (Value::Null, _) => line("Used", "no plan, no limits".into()),
        (limits, _) => {
            for (name, title) in [("messages", "Messages"), ("tokens", "Tokens")] {
                line(title, limit(&limits[name]));
            }
            let requests = if answer["open"] == 1 { "request" } else { "requests" };
            line("Open", format!("{} {requests}", answer["open"]));
        }
    }
    if let Some(devices) = answer["devices"].as_object() {
        let max = devices.get("max").and_then(Value::as_u64);
        let of = max.map(|max| format!(" of {max}")).unwrap_or_default();
        line("Devices", format!("{}{of}", devices.get("used").unwrap_or(&Value::Null)));
    }
    line("Last seen", or(&answer["last_seen"], "never used here"));
    if source != "static" {
        line("Checked", or(&answer["checked"], "never"));
    }
    for (place, action) in answer["actions"].as_array().into_iter().flatten().enumerate() {
        let mut words = format!("{}  {}", word(&action["time"]), word(&action["action"]));
        for (name, before, after) in [("detail", " ", ""), ("note", " (", ")")] {
            let more = word(&action[name]);
            if !more.is_empty() {
                let _ = write!(words, "{before}{more}{after}");
            }
        }
        line(if place == 0 { "Actions" } else { "" }, words);
    }
    text
}

/// Licences in columns.
///
/// # Errors
/// When `out` is closed.
pub fn list(all: &[Value], out: &mut dyn io::Write) -> io::Result<()> {
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or("-").to_owned();
    writeln!(
        out,
        "{:<14} {:<10} {:<9} {:<20} {:<20} {:>7}  {:<8} NOTE",
        "LICENCE", "PLAN", "STATE", "UNTIL", "LAST SEEN", "DEVICES", "ORIGIN"
    )?;
    for one in all {
        let id = text(one, "license");
        writeln!(
            out,
            "{:<14} {:<10} {:<9} {:<20} {:<20} {:>7}  {:<8} {}",
            id.get(..12).unwrap_or(&id),
            text(one, "plan"),
            text(one, "state"),
            text(one, "until"),
            text(one, "last_seen"),
            one["devices"],
            text(one, "origin"),
            text(one, "note")
        )?;
    }
    Ok(())
}

/// # Errors
/// When `out` is closed.
pub fn list_csv(all: &[Value], out: &mut dyn io::Write) -> io::Result<()> {
    let names =
        ["license", "plan", "state", "until", "created", "last_seen", "devices", "origin", "note"];
    writeln!(out, "{}", names.join(","))?;
    for one in all {
        let cells = names.map(|name| match &one[name] {
            Value::String(text) if text.contains([',', '"']) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        });
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

fn done_words(done: &Value, answer: &Value) -> String {
    let mut words = match (done["action"].as_str(), done["repeated"] == true) {
        (_, true) => "This was done before; nothing changed.".to_owned(),
        (Some("grant"), _) => {
            format!("Granted {}, for the current window of the limit.", last_detail(answer))
        }
        (Some("reset"), _) => "What was used so far is forgiven.".to_owned(),
        (Some("extend"), _) => "Extended.".to_owned(),
        (Some("expire"), _) => "Ended: it is refused from now on.".to_owned(),
        (Some("revoke"), _) => "Revoked: it is refused from now on.".to_owned(),
        _ => "Restored: it counts as its source says.".to_owned(),
    };
    if done["told"] == false {
        words += "\nThe shared store does not answer: it is recorded here, and the other gateways \
                  are told when the store is back.";
    }
    words
}

fn last_detail(answer: &Value) -> String {
    word(&answer["actions"][0]["detail"])
}

fn status(answer: &Value) -> String {
    match (answer["revoked_at"].as_str(), answer["until"].as_str()) {
        (Some(at), _) => format!("revoked since {at}"),
        (None, Some(until)) => format!("{} until {until}", word(&answer["status"])),
        (None, None) => word(&answer["status"]),
    }
}

fn moved(moved: &Value) -> String {
    let at = word(&moved["at"]);
    match (moved["replaced"] == true, moved["accepted_until"].as_str()) {
        (true, Some(until)) => format!("{at}, this key was replaced; it is taken until {until}"),
        (true, None) => format!("{at}, this key was replaced and is refused"),
        (false, _) => format!("{at}, this key continues an earlier one's licence"),
    }
}

fn limit(limit: &Value) -> String {
    if limit.is_null() {
        return "unlimited".into();
    }
    let mut words = format!(
        "{} of {} used, {} left until {}",
        limit["used"],
        limit["limit"],
        limit["left"],
        word(&limit["resets_at"])
    );
    let more: Vec<String> = [("extra", "extra"), ("forgiven", "forgiven")]
        .iter()
        .filter(|(name, _)| limit[*name] != 0)
        .map(|(name, what)| format!("{} {what}", limit[*name]))
        .collect();
    if !more.is_empty() {
        let _ = write!(words, " ({})", more.join(", "));
    }
    words
}

fn word(value: &Value) -> String {
    or(value, "")
}

fn or(value: &Value, otherwise: &str) -> String {
    value.as_str().unwrap_or(otherwise).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_reads_as_a_person_would_say_it() {
        let answer = json!({
            "license": "0a", "plan": "free", "source": "static", "status": "valid",
            "until": null, "revoked": false, "revoked_at": null, "open": 1, "store": "up",
            "limits": {
                "messages": { "limit": 150, "used": 7, "left": 143, "extra": 100, "forgiven": 0,
                              "resets_at": "2026-12-01T00:00:00Z" },
                "tokens": null,
            },
            "devices": { "used": 1, "max": 3 }, "last_seen": null, "checked": null,
            "actions": [{ "time": "2026-11-24T10:00:00Z", "action": "grant", "id": "x",
                          "detail": "100 messages", "note": "sorry" }],
            "done": { "action": "grant", "id": "x", "repeated": false, "told": false },
        });
        let expected = "\
Granted 100 messages, for the current window of the limit.
The shared store does not answer: it is recorded here, and the other gateways are told when the store is back.

Licence    0a
Plan       free (static)
Status     valid
Messages   7 of 150 used, 143 left until 2026-12-01T00:00:00Z (100 extra)
Tokens     unlimited
Open       1 request
Devices    1 of 3
Last seen  never used here
Actions    2026-11-24T10:00:00Z  grant 100 messages (sorry)
";
        assert_eq!(of(&answer), expected);
    }

    #[test]
    fn a_revoked_licence_and_a_store_that_is_away_are_said() {
        let answer = json!({
            "license": "0a", "plan": "pro", "source": "gumroad", "status": "revoked",
            "revoked_at": "2026-11-24T10:00:00Z", "limits": null, "store": "down", "actions": [],
        });
        let text = of(&answer);
        assert!(text.contains("revoked since 2026-11-24T10:00:00Z"), "{text}");
        assert!(text.contains("the shared store does not answer"), "{text}");
        assert!(text.contains("Checked    never"), "{text}");
    }
}
