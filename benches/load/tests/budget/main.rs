//! What a JSON and a stream request cost in allocations, their KiB, and system calls, held to `benches/budget.json`.
//! The KiB show a future that has grown: a request's are boxed, and copied when that is done.
//!
//! This program is the gateway as well: it starts itself with an allocator that counts, and looks at the
//! thread that serves. `make budget` writes the file anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod counting;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::ExitCode,
    thread,
};

use load::{
    contender::{Contender, Programs},
    count::{
        Case, Cell, Run,
        instrument::{Instrument, ptrace_is_closed},
    },
    traffic::Headers,
};
use rustix::thread::sched_getaffinity;

use crate::counting::{THREADS, counts};

/// Where the gateway that counts tells its counts.
const TELL: &str = "BUDGET_TELL";
/// Allocations, or KiB, by which a request may differ.
const ALLOWED: f64 = 0.3;
/// The same of calls: each serving thread has a timer that rings ten times a second, whatever a request takes.
const ALLOWED_CALLS: f64 = 0.6;
/// The same as a share: a stream makes hundreds of calls, and some timers ring during the 0.2 s that it takes.
const ALLOWED_SHARE: f64 = 0.01;

/// A kind of request, counted in batches. The least is held: what the clock causes, such as a timer's turn, only
/// adds to some of them.
struct Batches {
    case: Case,
    name: &'static str,
    batches: usize,
    requests: usize,
}

const KINDS: [Batches; 2] = [
    Batches { case: Case::Json, name: "JSON", batches: 40, requests: 25 },
    Batches { case: Case::Stream, name: "stream", batches: 9, requests: 1 },
];

type Budget = BTreeMap<String, f64>;

fn main() -> ExitCode {
    if let Ok(address) = env::var(TELL) {
        thread::spawn(move || tell(TcpStream::connect(address).unwrap()));
        return gatekeeper::main(gatekeeper_filters::builtin());
    }
    if !is_asked_for() {
        return ExitCode::SUCCESS;
    }
    let why_not = ptrace_is_closed();
    let counted = thread::scope(|scope| {
        let traced = why_not.is_none();
        let runs = KINDS.map(|kind| scope.spawn(move || count(&kind, traced)));
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect::<Budget>()
    });
    if let Some(why) = why_not {
        println!("budget: system calls are not counted, processes can't be traced here: {why}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../budget.json");
    if env::var_os("BUDGET_WRITE").is_some() {
        fs::write(&path, serde_json::to_string_pretty(&counted).unwrap() + "\n").unwrap();
    }
    let budget: Budget = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut kept = true;
    for (name, count) in &counted {
        let allowed = budget.get(name).copied().unwrap_or(f64::NAN);
        let most = if name.ends_with("calls") { ALLOWED_CALLS } else { ALLOWED };
        let within = (count - allowed).abs() <= most.max(allowed * ALLOWED_SHARE);
        let verdict = if within { "" } else { "  OTHER THAN COMMITTED" };
        println!("budget: {name:<24} {count:>8.2} a request, committed {allowed:>8.2}{verdict}");
        kept &= within;
    }
    if kept {
        return ExitCode::SUCCESS;
    }
    println!("budget: if that is meant, `make budget` writes benches/budget.json anew.");
    ExitCode::FAILURE
}

/// Cargo passes on to every test program which tests are to run.
fn is_asked_for() -> bool {
    let mut wanted = true;
    for word in env::args().skip(1) {
        if word == "--list" {
            println!("budget: test");
            return false;
        }
        if !word.starts_with('-') {
            wanted = "budget".contains(&word);
        }
    }
    wanted
}

/// Counts of one kind of request, each under its name.
fn count(kind: &Batches, traced: bool) -> Vec<(String, f64)> {
    let Batches { case, name, batches, requests } = *kind;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let programs = Programs {
        nginx: "nginx".into(),
        bare: "none".into(),
        gatekeeper: env::current_exe().unwrap(),
        gatekeeper_env: Some((TELL, listener.local_addr().unwrap().to_string())),
        profiles: None,
        core: sched_getaffinity(None).unwrap(),
    };
    let who = Contender::Gatekeeper;
    let cell = Cell { case, who, headers: Headers::Sdk, connections: 1, requests };
    let instrument = if traced { Instrument::Strace } else { Instrument::Kernel };
    let mut run = Run::start(&cell, instrument, &programs).unwrap();
    let (mut gateway, _) = listener.accept().unwrap();
    let (mut allocations, mut bytes, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..batches {
        let before = ask(&mut gateway);
        let mark = run.begin().unwrap();
        run.batch(requests).unwrap();
        let threads = run.end(&mark).unwrap();
        let now = ask(&mut gateway);
        allocations.push(most(&before[0], &now[0]));
        bytes.push(most(&before[1], &now[1]));
        let serving = threads.iter().max_by_key(|thread| thread.serves()).unwrap();
        calls.push(serving.all_calls());
    }
    let each = |counts: Vec<u64>| {
        let least = *counts.iter().min().unwrap();
        (least as f64 / requests as f64 * 100.0).round() / 100.0
    };
    let kib = (each(bytes) / 1024.0 * 100.0).round() / 100.0;
    let mut counts =
        vec![(format!("{name}: allocations"), each(allocations)), (format!("{name}: KiB"), kib)];
    if traced {
        counts.push((format!("{name}: system calls"), each(calls)));
    }
    counts
}

/// The gateway's end: a count for each thread, whenever asked.
fn tell(mut asked: TcpStream) {
    let mut word = [0];
    while asked.read_exact(&mut word).is_ok() {
        let bytes = counts().map(|counts| counts.map(u64::to_le_bytes));
        if asked.write_all(bytes.as_flattened().as_flattened()).is_err() {
            return;
        }
    }
}

fn ask(gateway: &mut TcpStream) -> [[u64; THREADS]; 2] {
    let mut bytes = [[[0; 8]; THREADS]; 2];
    gateway.write_all(&[0]).unwrap();
    gateway.read_exact(bytes.as_flattened_mut().as_flattened_mut()).unwrap();
    bytes.map(|counts| counts.map(u64::from_le_bytes))
}

/// What the thread that did most did between the two.
fn most(before: &[u64; THREADS], now: &[u64; THREADS]) -> u64 {
    now.iter().zip(before).map(|(now, before)| now - before).max().unwrap()
}
