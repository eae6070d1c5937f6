//! The 16 faults of a public failover bench, by its pass rules, in four configurations; every wait a tenth of
//! the bench's. docs/failover.md has the table that this prints.
//!
//! `pass`: the whole answer and every check. `partial`: the whole answer, an advisory check failed. `safe`: no
//! answer, and a clean error in time. `fail`: a hang, a cut answer that looks whole, or a required check.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Answer, Config, Gateway, LICENSE, Mock, Reply, Step, client, sse};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Partial,
    Safe,
    Fail,
}
use Verdict::{Fail, Partial, Pass, Safe};

/// How the operator set it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Setup {
    /// One key, no fallback: the docs' first example.
    Solo,
    /// One key, a fallback, 30 s for everything: the bench's baseline.
    Strict,
    /// Two accounts, a fallback, 10 s to the first token.
    Sensible,
    /// The same with `delivery: whole`.
    Whole,
}
use Setup::{Sensible, Solo, Strict, Whole};

/// What each fault came to: solo, strict, sensible, whole.
const VERDICTS: [(&str, [Verdict; 4]); 16] = [
    ("S01 429 with a pause of 1 s, once", [Pass, Partial, Partial, Partial]),
    ("S02 429 always", [Safe, Pass, Pass, Pass]),
    ("S03 500 once", [Pass, Partial, Pass, Pass]),
    ("S04 503 always", [Safe, Pass, Pass, Pass]),
    ("S05 reset before the head, once", [Pass, Pass, Pass, Pass]),
    ("S06 silence", [Safe, Pass, Pass, Pass]),
    ("S07 first token after 2 s", [Partial, Partial, Pass, Pass]),
    ("S08 cut after 40 of 60 words", [Safe, Safe, Safe, Pass]),
    ("S09 stall of 4 s", [Safe, Safe, Safe, Pass]),
    ("S10 malformed chunk", [Safe, Safe, Safe, Pass]),
    ("S11 no [DONE]", [Pass, Pass, Pass, Pass]),
    ("S12 400 context_length_exceeded", [Safe, Pass, Pass, Pass]),
    ("S13 400 content filter", [Pass, Pass, Pass, Pass]),
    ("S14 cut, and a fallback without prefill", [Safe, Safe, Safe, Pass]),
    ("S15 down for 2 s, 20 requests", [Safe, Pass, Pass, Pass]),
    ("S16 429 always: who answered, and usage", [Safe, Pass, Pass, Pass]),
];

impl Setup {
    const ALL: [Setup; 4] = [Solo, Strict, Sensible, Whole];

    fn name(self) -> &'static str {
        match self {
            Solo => "solo",
            Strict => "strict",
            Sensible => "sensible",
            Whole => "whole",
        }
    }

    fn timeouts(self) -> &'static str {
        match self {
            Strict => "connect: 3s, first_byte: 3s, first_token: 3s, idle: 3s, total: 12s",
            _ => "connect: 3s, first_byte: 1s, first_token: 1s, idle: 1500ms, total: 12s",
        }
    }

    /// A provider and a fallback for each scenario, so that no scenario is seen in another.
    fn configure(self, primary: &Mock, fallback: &Mock) -> Config {
        let plan =
            "messages: 1000000/month, tokens: 1000000000/month, concurrency: 1000, models: [\"*\"]";
        let mut config = Config::empty().plan("bench", plan).license(LICENSE, "bench");
        let timeouts = format!(", timeouts: {{ {} }}", self.timeouts());
        for number in 1..=VERDICTS.len() {
            let (name, other) = (format!("s{number:02}"), format!("f{number:02}"));
            let at = |mock: &Mock| format!("http://127.60.{number}.1:{}/v1", mock.addr.port());
            let keys = [format!("{name}.1"), format!("{name}.2")];
            let count = if matches!(self, Solo | Strict) { 1 } else { 2 };
            let keys: Vec<&str> = keys.iter().take(count).map(String::as_str).collect();
            config = config.provider_at(&name, &at(primary), &timeouts, &keys);
            let mut targets = format!("{name}/m");
            if self != Solo {
                config = config.provider_at(&other, &at(fallback), &timeouts, &[&other]);
                targets = format!("{targets}, {other}/m");
            }
            let model = match self {
                Whole => format!("{{ targets: [{targets}], delivery: whole }}"),
                _ => format!("[{targets}]"),
            };
            config = config.model(&name, &model);
        }
        config
    }
}

fn words(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|word| format!("word{word} ")).collect()
}

fn text() -> String {
    words(0..60).concat()
}

fn chunks(range: std::ops::Range<usize>) -> Vec<String> {
    words(range).iter().map(|word| sse::text(word)).collect()
}

fn good() -> Reply {
    let all = words(0..60);
    Reply::sse(&sse::with_usage(&all.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// What the primary does in each scenario; the last of a list stays.
fn script(number: usize) -> Vec<Reply> {
    let begun = |to: usize| Reply::sse(&[sse::ROLE.to_owned()]).write(chunks(0..to).concat());
    let rest = |from: usize| chunks(from..60).concat() + sse::FINISH + sse::USAGE;
    let refused = |code: &str, message: &str| {
        let error = json!({ "error": { "message": message, "type": "invalid_request_error",
            "param": "messages", "code": code } });
        Reply::json(400, error.to_string())
    };
    match number {
        1 => vec![Reply::error(429).header("retry-after", "1"), good()],
        2 | 16 => vec![Reply::error(429).header("retry-after", "1")],
        3 => vec![Reply::error(500), good()],
        4 | 15 => vec![Reply::error(503)],
        5 => vec![Reply::instead([Step::Reset]), good()],
        6 => vec![Reply::instead([Step::Hang])],
        7 => vec![
            Reply::sse::<&str>(&[])
                .then(Step::Wait(Duration::from_secs(2)))
                .write(sse::ROLE.to_owned() + &rest(0) + sse::DONE),
        ],
        // Long enough for the first words to reach the app, however busy the machine is.
        8 | 14 => vec![begun(40).then(Step::Wait(Duration::from_millis(400))).then(Step::Close)],
        9 => vec![begun(40).then(Step::Wait(Duration::from_secs(4))).write(rest(40) + sse::DONE)],
        10 => vec![
            begun(10)
                .then(Step::Wait(Duration::from_millis(400)))
                .write("data: {\"id\":\"c1\",\"choices\":[{\"del\n\n")
                .write(rest(10) + sse::DONE),
        ],
        11 => vec![begun(60).write(sse::FINISH.to_owned() + sse::USAGE)],
        12 => vec![refused(
            "context_length_exceeded",
            "This model's maximum context length is 8192 tokens.",
        )],
        13 => vec![refused("content_filter", "The prompt was filtered by the content policy.")],
        _ => vec![good()],
    }
}

/// One scenario in one set-up.
struct Run {
    setup: Setup,
    number: usize,
    gateway: Arc<Gateway>,
    primary: Arc<Mock>,
    fallback: Arc<Mock>,
}

impl Run {
    fn name(&self) -> String {
        format!("s{:02}", self.number)
    }

    async fn ask(&self) -> (Answer, Duration) {
        let began = Instant::now();
        let body = json!({ "model": self.name(), "stream": true,
            "stream_options": { "include_usage": true } });
        let answer = self.gateway.app().ask(&client::chat(&body)).await;
        (answer, began.elapsed())
    }

    /// When each request came to the primary.
    fn asked(&self) -> Vec<Instant> {
        let family = self.name();
        let own = self.primary.seen().into_iter().filter(|seen| seen.method == "POST");
        own.filter(|seen| seen.key.starts_with(&family)).map(|seen| seen.at).collect()
    }

    fn fallbacks(&self) -> usize {
        self.fallback.keys_of(&format!("f{:02}", self.number)).len()
    }

    async fn verdict(&self) -> Verdict {
        if self.number == 15 {
            return self.outage().await;
        }
        let (answer, took) = self.ask().await;
        let (asked, fallbacks) = (self.asked(), self.fallbacks());
        let is_whole = is_whole(&answer);
        let has_usage = answer.text().contains("\"total_tokens\"");
        let is_alive = self.gateway.app().get("/healthz").send().await.is_ok();
        let gap = asked.get(1).map(|second| *second - asked[0]);
        let (required, advisory) = match self.number {
            1 => (true, gap.is_some_and(|gap| gap >= Duration::from_millis(900))),
            2 => (asked.len() <= 4 && asked.len() + fallbacks <= 6, true),
            3 => (true, asked.len() >= 2),
            4 => (asked.len() <= 6, true),
            6 => (took < Duration::from_secs(10), asked.len() <= 1),
            7 => (true, took < Duration::from_millis(1500)),
            9 => (took < Duration::from_millis(4500), true),
            11 => (took < Duration::from_millis(2500), has_usage),
            12 => (asked.len() <= 1 && asked.len() + fallbacks <= 2, true),
            13 => return content_filter(&answer, asked.len(), fallbacks, is_whole),
            16 => (asked.len() <= 6, self.setup == Solo || says_who(&answer)),
            _ => (true, true),
        };
        match (is_whole, required && is_alive) {
            (_, false) => Fail,
            (true, true) if advisory => Pass,
            (true, true) => Partial,
            (false, true) if is_clean_error(&answer) => Safe,
            (false, true) => Fail,
        }
    }

    /// Twenty requests while it is down, then it is back.
    async fn outage(&self) -> Verdict {
        let (mut served, mut clean) = (0, 0);
        for _ in 0..20 {
            let (answer, _) = self.ask().await;
            served += usize::from(is_whole(&answer));
            clean += usize::from(is_whole(&answer) || is_clean_error(&answer));
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        self.primary.key(&self.name(), [good()]);
        let (back, before) = (Instant::now(), self.asked().len());
        loop {
            let (answer, _) = self.ask().await;
            let primary = format!("{}/m", self.name());
            if is_whole(&answer) && answer.header("x-gatekeeper-model") == Some(&primary) {
                break;
            }
            if back.elapsed() > Duration::from_secs(6) {
                return Fail;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        match (served, clean) {
            (20, _) if before <= 20 => Pass,
            (20, _) => Partial,
            (_, 20) => Safe,
            _ => Fail,
        }
    }
}

fn is_whole(answer: &Answer) -> bool {
    answer.status == 200 && answer.whole && sse::content(&answer.body) == text() && {
        let body = answer.text();
        body.contains("\"finish_reason\":\"stop\"") && !body.contains("\"error\"")
    }
}

/// An error by its status, or as the last event of a stream without an end marker.
fn is_clean_error(answer: &Answer) -> bool {
    let body = answer.text();
    let has_error = body.contains("\"error\"") && !body.contains("[DONE]");
    has_error && !body.contains("SECRET") && answer.whole
}

/// The provider's own refusal is the answer; asking elsewhere until somebody says yes is not.
fn content_filter(answer: &Answer, asked: usize, fallbacks: usize, is_whole: bool) -> Verdict {
    match (asked, fallbacks) {
        (1, 0) if answer.status == 400 && is_clean_error(answer) => Pass,
        _ if is_whole => Partial,
        _ => Fail,
    }
}

fn says_who(answer: &Answer) -> bool {
    answer.header("x-gatekeeper-model") == Some("f16/m") && answer.text().contains("\"usage\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sixteen_faults_come_to_what_the_documents_say() {
    let mut running = JoinSet::new();
    for setup in Setup::ALL {
        let primary = Arc::new(Mock::everywhere(Reply::status(418)).await);
        let fallback = Arc::new(Mock::everywhere(good()).await);
        for number in 1..=VERDICTS.len() {
            primary.key(&format!("s{number:02}"), script(number));
        }
        let gateway = Arc::new(Gateway::start(setup.configure(&primary, &fallback)).await);
        for number in 1..=VERDICTS.len() {
            let (gateway, primary) = (gateway.clone(), primary.clone());
            let run = Run { setup, number, gateway, primary, fallback: fallback.clone() };
            running.spawn(async move { ((number, setup), run.verdict().await) });
        }
    }
    let found: BTreeMap<(usize, Setup), Verdict> = running.join_all().await.into_iter().collect();
    let mut wrong = Vec::new();
    println!("| fault | solo | strict | sensible | whole |\n|---|---|---|---|---|");
    for (number, (title, expected)) in (1..).zip(VERDICTS) {
        let row = Setup::ALL.map(|setup| found[&(number, setup)]);
        let cells = row.map(|verdict| format!("{verdict:?}").to_lowercase());
        println!("| {title} | {} |", cells.join(" | "));
        for ((setup, found), expected) in Setup::ALL.iter().zip(row).zip(expected) {
            if found != expected {
                wrong.push(format!("{title}, {}: {found:?}, not {expected:?}", setup.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
