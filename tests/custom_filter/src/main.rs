//! A gateway with one filter more: a word that no question may contain.

use std::sync::Arc;

use gatekeeper_filters::kernel::{
    Exchange, Filter, ModelRequest, Rejection, ResponseHead, Services, Spec, Verdict, async_trait,
};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// YAML: `forbidden_word: { word: secret }`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ForbiddenWord {
    word: String,
    /// Shows in the answer's head, so that an app can tell which rule it passed.
    #[serde(default = "default_label")]
    label: String,
}

fn default_label() -> String {
    "checked".into()
}

impl Spec for ForbiddenWord {
    const NAME: &'static str = "forbidden_word";
    const SUMMARY: &'static str = "refuses questions that contain a word";
    const AFTER: &'static [&'static str] = &["license"];

    fn build(self, _services: &Services) -> Result<Arc<dyn Filter>, String> {
        if self.word.is_empty() {
            return Err("`word` is empty: every question would be refused".into());
        }
        Ok(Arc::new(self))
    }
}

/// What this filter remembers of one request.
struct Checked;

#[async_trait]
impl Filter for ForbiddenWord {
    async fn request(&self, exchange: &mut Exchange, ask: &mut ModelRequest) -> Verdict {
        let messages = ask.members.get("messages").unwrap_or_default();
        let text = String::from_utf8_lossy(messages);
        if text.contains(&self.word) {
            let words = format!("This service does not answer questions about {}.", self.word);
            return Err(Rejection::field("messages", words));
        }
        exchange.extensions.insert(Checked);
        Ok(())
    }

    fn response(&self, exchange: &mut Exchange, head: &mut ResponseHead) {
        if exchange.extensions.get::<Checked>().is_some()
            && let Ok(label) = HeaderValue::from_str(&self.label)
        {
            head.insert(HeaderName::from_static("x-word-check"), label);
        }
    }
}

fn main() -> std::process::ExitCode {
    gatekeeper::main(gatekeeper_filters::builtin().with::<ForbiddenWord>())
}
