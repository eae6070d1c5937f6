//! One JSON line a request, with the fields of its record. Written by a thread of its own, so that
//! a slow disk or a blocked pipe never holds up an answer; lines that don't fit are counted and
//! dropped.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use gatekeeper_filters::kernel::{DOLLAR, LicenseId, Record};
use parking_lot::Mutex;

use crate::{config::settings, telemetry::completed_request::CompletedRequest};

/// Lines waiting for the writer: what 100,000 requests a second bring while it gathers.
const WAITING: usize = 8192;
/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes per write.
const TOGETHER: usize = 64 * 1024;

pub struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    /// Whether lines are wanted: else none is made.
    is_on: AtomicBool,
    dropped: AtomicU64,
    /// Where lines go, and where the writer finds it when it has changed.
    target: Mutex<settings::AccessLogSettings>,
    next: Arc<Mutex<Option<Sink>>>,
}

/// Where lines go, opened.
pub struct Sink(Option<SinkKind>);

enum SinkKind {
    Stdout,
    File(LogFile),
}

impl Sink {
    /// # Errors
    /// The file can't be opened.
    pub fn open(settings: &settings::AccessLogSettings) -> io::Result<Self> {
        Ok(Self(match settings {
            settings::AccessLogSettings::Off => None,
            settings::AccessLogSettings::Stdout => Some(SinkKind::Stdout),
            settings::AccessLogSettings::File(file) => Some(SinkKind::File(LogFile::open(file)?)),
        }))
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            None => Ok(()),
            Some(SinkKind::Stdout) => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Some(SinkKind::File(file)) => file.append(lines),
        }
    }
}

impl AccessLog {
    /// # Errors
    /// The file can't be opened, or no thread can be started.
    pub fn open(settings: &settings::AccessLogSettings) -> io::Result<Self> {
        let out = Sink::open(settings)?;
        let (sender, receiver) = sync_channel(WAITING);
        let next = Arc::<Mutex<Option<Sink>>>::default();
        let found = next.clone();
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(&receiver, out, &found))?;
        Ok(Self {
            lines: sender,
            is_on: AtomicBool::new(*settings != settings::AccessLogSettings::Off),
            dropped: AtomicU64::new(0),
            target: Mutex::new(settings.clone()),
            next,
        })
    }

    /// Lines go there from now on.
    pub fn switch(&self, settings: &settings::AccessLogSettings, out: Sink) {
        let mut target = self.target.lock();
        target.clone_from(settings);
        *self.next.lock() = Some(out);
        self.is_on.store(*settings != settings::AccessLogSettings::Off, Relaxed);
        // Wakes the writer; when it has lines to write it needs no waking.
        let _ = self.lines.try_send(Vec::new());
    }

    /// Opens the file anew: the old one was moved away.
    pub fn reopen(&self) {
        let target = self.target.lock().clone();
        match Sink::open(&target) {
            Ok(out) => self.switch(&target, out),
            Err(error) => log::error!(
                "The access log cannot be reopened, so writing continues in the old file: {error}."
            ),
        }
    }

    pub(super) fn write(&self, request: &CompletedRequest<'_>, record: &Record) {
        if !self.is_on.load(Relaxed) {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line(request, record)) {
            let dropped = self.dropped.fetch_add(1, Relaxed) + 1;
            if dropped.is_power_of_two() {
                log::warn!(
                    "The access log cannot keep up with the requests: {dropped} lines were dropped."
                );
            }
        }
    }
}

/// Waits for a line, lets more come, writes them together. A writer that wakes for each line would
/// cost every request a system call or two.
fn write_lines(lines: &Receiver<Vec<u8>>, mut out: Sink, next: &Mutex<Option<Sink>>) {
    let (mut trouble, mut together) = (Trouble::default(), Vec::with_capacity(TOGETHER));
    while let Ok(line) = lines.recv() {
        // An empty line means that the log goes elsewhere: it is flushed at once.
        if !line.is_empty() {
            std::thread::sleep(GATHER);
        }
        if let Some(changed) = next.lock().take() {
            out = changed;
            trouble.is_elsewhere();
        }
        together.extend_from_slice(&line);
        for line in lines.try_iter().take(WAITING) {
            if together.len() + line.len() > TOGETHER {
                trouble.report(together.len(), &out.write(&together));
                together.clear();
            }
            together.extend_from_slice(&line);
        }
        if !together.is_empty() {
            trouble.report(together.len(), &out.write(&together));
            together.clear();
        }
    }
}

/// Whether lines can be written; logged once for each change, not for each attempt.
///
/// A full disk has a little room left, so a short write may go through between two long ones. It works
/// again only when more has been written since the last failure than would have fitted then.
#[derive(Default)]
struct Trouble {
    /// Bytes still to be written before it counts as over; none while all is well.
    outstanding: Option<usize>,
}

#[derive(Debug, PartialEq)]
enum Change {
    Fails,
    Works,
}

impl Trouble {
    /// A new target has whatever room it has.
    fn is_elsewhere(&mut self) {
        self.outstanding = self.outstanding.map(|_| 1);
    }

    fn after(&mut self, length: usize, succeeded: bool) -> Option<Change> {
        let before = self.outstanding;
        self.outstanding = if succeeded {
            before.map(|bytes| bytes.saturating_sub(length)).filter(|bytes| *bytes > 0)
        } else {
            Some(length)
        };
        match (before.is_some(), self.outstanding.is_some()) {
            (false, true) => Some(Change::Fails),
            (true, false) => Some(Change::Works),
            _ => None,
        }
    }

    fn report(&mut self, length: usize, result: &io::Result<()>) {
        match (self.after(length, result.is_ok()), result) {
            (Some(Change::Fails), Err(error)) => {
                log::error!("The access log can't be written: {error}.");
            }
            (Some(Change::Works), _) => {
                log::info!("The access log can be written again; some lines are missing.");
            }
            _ => {}
        }
    }
}

/// A file that lines are appended to. What moves it away sends SIGHUP, and it is opened anew.
struct LogFile(File);

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // Readable by the gateway's user only: it holds addresses and times.
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).open(path).map(Self).map_err(named)
    }

    /// All of it or, on a disk that is full, nothing.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < lines.len() {
            match self.0.write(&lines[written..]) {
                Ok(0) => return self.truncate(written, io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.truncate(written, error),
            }
        }
        Ok(())
    }

    /// A line that was cut off would spoil the one that follows it.
    fn truncate(&mut self, written: usize, error: io::Error) -> io::Result<()> {
        if written > 0 {
            let end = self.0.metadata()?.len();
            self.0.set_len(end.saturating_sub(written as u64))?;
        }
        Err(error)
    }
}

/// Writes a JSON string. Almost none of these words has anything to escape.
fn quote(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        let _ = serde_json::to_writer(out, text);
    }
}

/// Where an endpoint is asked for. Models and secrets that stand in a path are not written down.
fn path_of(endpoint: &str) -> &'static str {
    match endpoint {
        "chat" => "/v1/chat/completions",
        "responses" => "/v1/responses",
        "embeddings" => "/v1/embeddings",
        "messages" => "/v1/messages",
        "generate" => "/v1beta/models/{model}:generateContent",
        "count_tokens" => "/v1/messages/count_tokens",
        "models" => "/v1/models",
        "model" => "/v1/models/{id}",
        "me" => "/v1/me",
        "activate" => "/license/activate",
        "deactivate" => "/license/deactivate",
        "healthz" => "/healthz",
        webhook if webhook.starts_with("webhook_") => "/webhooks/...",
        _ => "",
    }
}

/// Names are configured words and ids made here. They rarely need escaping, but a configuration may hold
/// any character, so strings go through [`quote`].
fn line(request: &CompletedRequest<'_>, record: &Record) -> Vec<u8> {
    let mut line = Vec::with_capacity(512);
    line.extend_from_slice(b"{\"time\":\"");
    line.extend_from_slice(record.time.to_rfc3339().as_bytes());
    line.push(b'"');
    let error = request.reject.map_or("", |reject| reject.code.wire().1);
    let license = record.license.map(LicenseId::short_hex);
    let license = license.as_ref().and_then(|digits| std::str::from_utf8(digits).ok());
    let texts: [(&str, &str); 11] = [
        ("request", request.request_id),
        ("license", license.unwrap_or_default()),
        ("endpoint", record.endpoint),
        ("path", request.path.unwrap_or_else(|| path_of(record.endpoint))),
        ("plan", &record.plan),
        ("model", &record.model),
        ("served", &record.served),
        ("provider", &record.provider),
        ("key", &record.key),
        ("source", record.source.name()),
        ("error", error),
    ];
    for (name, text) in texts {
        put_name(&mut line, name);
        quote(&mut line, text);
    }
    let numbers = [
        ("input", record.usage.input),
        ("output", record.usage.output),
        ("cached", record.usage.cached),
        ("cache_write", record.usage.cache_write),
        ("wasted", record.wasted),
        ("charged", record.charged),
    ];
    for (name, number) in numbers {
        put_number(&mut line, name, number);
    }
    put_number(&mut line, "cost", record.cost / DOLLAR);
    // Picodollars: always twelve digits.
    let mut digits = itoa::Buffer::new();
    let parts = digits.format(DOLLAR + record.cost % DOLLAR);
    line.push(b'.');
    line.extend_from_slice(&parts.as_bytes()[1..]);
    put_number(&mut line, "status", u64::from(record.status));
    put_number(&mut line, "ms", record.ms);
    put_number(&mut line, "attempts", u64::from(record.attempts));
    line.extend_from_slice(b"}\n");
    line
}

fn put_name(line: &mut Vec<u8>, name: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

/// Eleven numbers a line: `write!` takes 300 instructions for each.
fn put_number(line: &mut Vec<u8>, name: &str, number: u64) {
    put_name(line, name);
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 300 bytes of room are left: lines of 200 bytes fit once, gathered ones do not.
    #[test]
    fn what_fits_into_the_rest_of_a_full_disk_is_no_recovery() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.after(200, true), None);
        assert_eq!(trouble.after(400, false), Some(Change::Fails));
        for (length, succeeds) in [(200, true), (200, false), (100, true), (400, false)] {
            assert_eq!(trouble.after(length, succeeds), None, "{length}");
        }
        assert_eq!(trouble.after(200, true), None);
        assert_eq!(trouble.after(200, true), Some(Change::Works));
        assert_eq!(trouble.after(400, true), None);
        // Another file has room of its own.
        assert_eq!(trouble.after(400, false), Some(Change::Fails));
        trouble.is_elsewhere();
        assert_eq!(trouble.after(200, true), Some(Change::Works));
    }

    #[test]
    fn lines_are_appended_to_a_file_of_the_gateways_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        for line in ["one\n", "two\n"] {
            LogFile::open(&path).unwrap().append(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        let error = LogFile::open(&dir.path().join("no/access.log")).map(drop).unwrap_err();
        assert!(error.to_string().contains("no/access.log"), "{error}");
    }
}
