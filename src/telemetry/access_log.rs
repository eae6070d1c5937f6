//! One JSON line a request, with the fields of its record. Written by a thread of its own, so that
//! a slow disk or a blocked pipe never holds up an answer; lines that don't fit are counted and
//! dropped.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use gatekeeper_filters::kernel::{DOLLAR, Record};

use crate::{config::settings, proxy::flight::Flight};

/// Lines waiting for the writer: what 100,000 requests a second bring while it gathers.
const WAITING: usize = 8192;
/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(50);

pub struct AccessLog {
    lines: Option<SyncSender<Vec<u8>>>,
    dropped: AtomicU64,
}

impl AccessLog {
    pub fn off() -> Self {
        Self { lines: None, dropped: AtomicU64::new(0) }
    }

    /// # Errors
    /// The file can't be opened, or no thread can be started.
    pub fn open(settings: &settings::AccessLog) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match settings {
            settings::AccessLog::Off => return Ok(Self::off()),
            settings::AccessLog::Stdout => Box::new(io::stdout()),
            settings::AccessLog::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                Box::new(file.map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?)
            }
        };
        let (sender, receiver) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(&receiver, BufWriter::with_capacity(64 * 1024, out)))?;
        Ok(Self { lines: Some(sender), dropped: AtomicU64::new(0) })
    }

    pub(super) fn write(&self, flight: &Flight, record: &Record) {
        let Some(lines) = &self.lines else { return };
        if lines.try_send(line(flight, record)).is_err() {
            let dropped = self.dropped.fetch_add(1, Relaxed) + 1;
            if dropped.is_power_of_two() {
                log::warn!("The access log is too slow: {dropped} lines were dropped.");
            }
        }
    }
}

/// Waits for a line, lets more come, writes them together. A writer that wakes for each line would
/// cost every request a system call or two.
fn write_lines(lines: &Receiver<Vec<u8>>, mut out: impl Write) {
    let mut failing = false;
    while let Ok(line) = lines.recv() {
        std::thread::sleep(GATHER);
        let mut result = out.write_all(&line);
        while let Ok(line) = lines.try_recv() {
            result = result.and_then(|()| out.write_all(&line));
        }
        result = result.and_then(|()| out.flush());
        // Once for each change, not for each attempt.
        match (&result, failing) {
            (Err(error), false) => log::error!("The access log can't be written: {error}."),
            (Ok(()), true) => {
                log::info!("The access log can be written again; some lines are missing.");
            }
            _ => {}
        }
        failing = result.is_err();
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

/// Names are configured words and ids of ours: none needs escaping but by a strange configuration,
/// so strings go through the JSON writer all the same.
fn line(flight: &Flight, record: &Record) -> Vec<u8> {
    let mut line = Vec::with_capacity(400);
    let text = |out: &mut Vec<u8>, name: &str, value: &str| {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        quote(out, value);
    };
    let _ = write!(line, "{{\"time\":\"{}\"", record.time.to_rfc3339());
    text(&mut line, "request", &flight.request_id);
    let _ = match record.license {
        Some(id) => write!(line, ",\"license\":\"{id:?}\""),
        None => write!(line, ",\"license\":\"\""),
    };
    text(&mut line, "endpoint", record.endpoint);
    text(&mut line, "plan", &record.plan);
    text(&mut line, "model", &record.model);
    text(&mut line, "served", &record.served);
    text(&mut line, "provider", &record.provider);
    text(&mut line, "key", &record.key);
    text(&mut line, "source", record.source.name());
    let _ = writeln!(
        line,
        ",\"input\":{},\"output\":{},\"cached\":{},\"charged\":{},\"cost\":{}.{:012},\"status\":{},\"ms\":{},\"attempts\":{}}}",
        record.usage.input,
        record.usage.output,
        record.usage.cached,
        record.charged,
        record.cost / DOLLAR,
        record.cost % DOLLAR,
        record.status,
        record.ms,
        record.attempts
    );
    line
}
