//! Limits by address, by clients that have addresses of their own.
//!
//! Loopback has no limits, so these tests run again in a network of their own, which has loopback and nothing else, with
//! more addresses on it. Where none can be made, they say so and end.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    Config, Gate, Gateway, Mock, Raw, Reply, Step,
    client::{self, post_head},
};

/// Set in the network of the test's own.
const INSIDE: &str = "GATEKEEPER_TEST_NETWORK";
/// All of 10.77.0.0/16 is the test's.
const GREEDY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// So many others have most of the room between a half and seven eighths of it.
const OTHERS: usize = 40;
const SHARE: usize = 8;

/// Whether this process is in a network of its own; else the test is run there, and has passed.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let script =
        "ip link set lo up && ip address add 10.77.0.1/16 dev lo || exit 77; exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output();
    match output {
        Ok(output) if output.status.success() => {
            print!("{}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(output) if output.status.code() != Some(77) && !output.stdout.is_empty() => {
            let said = [output.stdout, output.stderr].concat();
            panic!("in a network of its own: {}", String::from_utf8_lossy(&said));
        }
        _ => println!("SKIPPED: no network of its own can be made here"),
    }
    false
}

/// Of somebody else each.
fn other(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 1, number as u8))
}

/// Whether the gateway has not closed it.
async fn is_open(raw: &mut Raw) -> bool {
    raw.rest(Duration::from_millis(1)).await.is_none()
}

async fn count_open(all: &mut [Raw]) -> usize {
    let mut open = 0;
    for raw in all {
        open += usize::from(is_open(raw).await);
    }
    open
}

/// An address has what it likes while half of the room is free, then its share, whatever it does; others and its own
/// requests under way go on.
#[tokio::test]
async fn an_address_has_its_share_when_room_runs_short() {
    if !is_inside("addresses::an_address_has_its_share_when_room_runs_short") {
        return;
    }
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat().before_head(Step::Gate(gate.clone()))).await;
    let server = format!("limits: {{ connections_per_address: {SHARE}, header_timeout: 60s }}");
    let few = ["prlimit", "--nofile=256", "--"];
    let gateway = Gateway::start(Config::new(&mock).server(&server).under(&few)).await;
    // It has a request under way, all the time.
    let body = client::chat(&serde_json::json!({})).to_string();
    let mut busy = Raw::from(GREEDY, gateway.public).await.unwrap();
    busy.send(format!("{}content-length: {}\r\n\r\n{body}", post_head("/chat"), body.len())).await;
    mock.saw(1).await;
    let mut greedy = Vec::new();
    for _ in 0..2 * SHARE {
        greedy.push(Raw::from(GREEDY, gateway.public).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count_open(&mut greedy).await, 2 * SHARE, "there is room");
    // Others take half of the room: it gets no more, and those of its own that are idle end.
    let mut others = Vec::new();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(30), "it is never refused");
        others.push(Raw::from(other(others.len()), gateway.public).await.unwrap());
        let mut more = Raw::from(GREEDY, gateway.public).await.unwrap();
        if more.rest(Duration::from_millis(50)).await.is_some() {
            break;
        }
        greedy.push(more);
    }
    let beside = others.len();
    while others.len() < OTHERS {
        others.push(Raw::from(other(others.len()), gateway.public).await.unwrap());
    }
    println!("it is refused beside {beside} connections of others");
    gateway.logged("connections_per_address").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    while count_open(&mut greedy).await > SHARE {
        assert!(began.elapsed() < Duration::from_secs(40), "its idle connections stay");
        let mut more = Raw::from(GREEDY, gateway.public).await.unwrap();
        more.rest(Duration::from_millis(50)).await;
    }
    for number in 0..5 {
        let mut other = Raw::from(other(100 + number), gateway.public).await.unwrap();
        other.send("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(other.answer().await.expect("others are served").status, 200);
        gateway.readyz().await.expect("loopback has no share");
    }
    gate.open();
    assert_eq!(busy.answer().await.expect("a request under way is never ended").status, 200);
}
