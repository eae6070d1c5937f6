//! The exchange over pipes, and beside Pingora's on the same bytes.

use std::time::Duration;

use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_http::RequestHeader;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

/// The result of reading an answer.
#[derive(Debug, PartialEq)]
struct Read {
    /// Status and body, as far as it came.
    answer: Option<(u16, Vec<u8>)>,
    /// To its end, and nothing was wrong.
    whole: bool,
    reusable: bool,
}

const HEAD: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";

/// Sends `pieces` one by one, each read before the next is there; then the connection ends.
async fn feed(mut theirs: tokio::io::DuplexStream, pieces: Vec<Vec<u8>>) {
    for piece in pieces {
        if theirs.write_all(&piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    theirs.shutdown().await.ok();
    // What the session writes has a place.
    let _ = tokio::time::timeout(Duration::from_secs(1), theirs.read_to_end(&mut Vec::new())).await;
}

async fn ours(pieces: Vec<Vec<u8>>) -> Read {
    let (stream, theirs) = duplex(256 * 1024);
    let feeding = tokio::spawn(feed(theirs, pieces));
    let mut session = Http1Session::new(Box::new(stream));
    session.write(HEAD.into(), &[]).await.unwrap();
    let mut read = Read { answer: None, whole: false, reusable: false };
    if session.read_head().await.is_ok() {
        let (_, body) = read.answer.insert((session.head().unwrap().status, Vec::new()));
        read.whole = loop {
            match session.read_body().await {
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        assert!(!read.whole || session.is_ended());
        read.reusable = session.is_reusable();
    }
    drop(session);
    feeding.await.unwrap();
    read
}

async fn pingoras(pieces: Vec<Vec<u8>>) -> Read {
    let (stream, theirs) = duplex(256 * 1024);
    let feeding = tokio::spawn(feed(theirs, pieces));
    let mut session = HttpSession::new(Box::new(stream));
    let mut request = RequestHeader::build("POST", b"/", None).unwrap();
    request.insert_header("content-length", "0").unwrap();
    session.write_request_header(Box::new(request)).await.unwrap();
    let mut read = Read { answer: None, whole: false, reusable: false };
    let status = loop {
        match session.read_response().await {
            Ok(_) => match session.get_status().unwrap().as_u16() {
                100..=199 => {}
                status => break Some(status),
            },
            Err(_) => break None,
        }
    };
    if let Some(status) = status {
        let (_, body) = read.answer.insert((status, Vec::new()));
        read.whole = loop {
            match session.read_body_bytes().await {
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        session.respect_keepalive();
        read.reusable = session.reuse().await.is_some();
    } else {
        drop(session);
    }
    feeding.await.unwrap();
    read
}

const ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 429 Slow\r\nretry-after: 2\r\n\
     content-length: 2\r\n\r\n{}",
    "HTTP/1.1 500 \r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
];

#[tokio::test]
async fn answers_are_read_whole_however_they_are_cut() {
    for answer in ANSWERS {
        let whole = ours(vec![answer.as_bytes().to_vec()]).await;
        for size in [1, 2, 3, 7] {
            let pieces = answer.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            let cut = ours(pieces).await;
            assert_eq!(cut.answer, whole.answer, "{answer:?} in pieces of {size}");
            assert_eq!(cut.whole, whole.whole, "{answer:?} in pieces of {size}");
        }
        if !answer.contains(" 101 ") {
            assert!(whole.whole, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn only_connections_that_are_clean_are_used_again() {
    let reusable = async |answer: &str| ours(vec![answer.as_bytes().to_vec()]).await.reusable;
    for answer in
        [ANSWERS[0], ANSWERS[1], ANSWERS[2], ANSWERS[3], ANSWERS[7], ANSWERS[8], ANSWERS[10]]
    {
        assert!(reusable(answer).await, "{answer:?}");
    }
    for answer in [
        ANSWERS[4],
        ANSWERS[5],
        ANSWERS[6],
        ANSWERS[11],
        ANSWERS[12],
        "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
    ] {
        assert!(!reusable(answer).await, "{answer:?}");
    }
}

#[tokio::test]
async fn what_has_no_certain_end_is_no_answer() {
    for head in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: +5",
        "content-length: -1",
        "content-length: 99999999999999999999",
        "content-length:",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: chunked\r\ntransfer-encoding: gzip",
    ] {
        let read = ours(vec![format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nhello").into_bytes()]).await;
        assert_eq!(read.answer, None, "{head:?}");
    }
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "x\r\n",
        "\r\nhello",
        "-5\r\n",
        "5 5\r\nhello\r\n",
    ] {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let read = ours(vec![format!("{head}{body}").into_bytes()]).await;
        assert!(!read.whole && !read.reusable, "{body:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    assert_eq!(ours(vec![long.into_bytes()]).await.answer, None);
}

#[tokio::test]
async fn informational_heads_are_bounded_in_number_and_bytes() {
    let answer = async |head: &str, count: usize| {
        ours(vec![format!("{}{}", head.repeat(count), ANSWERS[0]).into_bytes()]).await.answer
    };
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n";
    assert!(answer(hint, 8).await.is_some());
    assert_eq!(answer(hint, 9).await, None);
    let long = format!("HTTP/1.1 100 \r\nx: {}\r\n\r\n", "y".repeat(30_000));
    assert!(answer(&long, 2).await.is_some());
    assert_eq!(answer(&long, 3).await, None, "all heads together are as long as one may be");
}

/// What a request that is asked anew unseen hangs on.
#[tokio::test]
async fn it_is_known_whether_any_of_an_answer_came() {
    for (came, heard) in [
        ("", false),
        ("H", true),
        ("HTTP/1.1 103 \r\n\r\n", true),
        ("HTTP/1.1 103 \r\n\r\nHTTP/1.1 200 OK\r\nconten", true),
    ] {
        let (stream, theirs) = duplex(64 * 1024);
        let feeding = tokio::spawn(feed(theirs, vec![came.as_bytes().to_vec()]));
        let mut session = Http1Session::new(Box::new(stream));
        session.write(HEAD.into(), &[]).await.unwrap();
        assert!(!session.has_heard(), "{came:?}");
        assert!(session.read_head().await.is_err(), "{came:?}");
        assert_eq!(session.has_heard(), heard, "{came:?}");
        drop(session);
        feeding.await.unwrap();
    }
}

/// A random number from a seed (splitmix64).
fn random(seed: &mut u64) -> usize {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) as usize >> 1
}

/// Where the two differ the stricter one has to be ours: what Pingora takes for broken is never whole here, and what both
/// take for whole is the same.
#[tokio::test]
async fn mutated_answers_mean_the_same_as_to_pingora() {
    let rounds = std::env::var("GATEKEEPER_MUTATIONS").ok().and_then(|n| n.parse().ok());
    let rounds: usize = rounds.unwrap_or(2000);
    let (mut seed, mut stricter) = (20_261_130, 0);
    for _ in 0..rounds {
        let mut bytes = ANSWERS[random(&mut seed) % (ANSWERS.len() - 1)].as_bytes().to_vec();
        for _ in 0..random(&mut seed) % 4 {
            let at = random(&mut seed) % bytes.len().max(1);
            match random(&mut seed) % 3 {
                0 => bytes[at] = b"\r\n:;, 0159aAfFxX\x00\xff"[random(&mut seed) % 18],
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.is_empty() {
                bytes.push(b'H');
            }
        }
        let cut = random(&mut seed) % bytes.len();
        let pieces = vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()];
        let (ours, theirs) = (ours(pieces.clone()).await, pingoras(pieces).await);
        let shown = bytes.escape_ascii();
        if ours.whole {
            assert_eq!(ours.answer, theirs.answer, "{shown}");
            assert!(theirs.whole, "{shown}");
        }
        if theirs.whole && !ours.whole {
            stricter += 1;
        }
    }
    assert!(
        stricter * 10 < rounds,
        "{stricter} of {rounds} answers that Pingora takes are refused"
    );
}

#[tokio::test]
async fn a_refusal_counts_while_the_provider_takes_nothing_more() {
    for at_once in [true, false] {
        let (stream, mut theirs) = duplex(64 * 1024);
        let refusing = tokio::spawn(async move {
            if !at_once {
                theirs.read_exact(&mut [0; 70 * 1024]).await.unwrap();
            }
            theirs.write_all(b"HTTP/1.1 413 \r\ncontent-length: 0\r\n\r\n").await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut session = Http1Session::new(Box::new(stream));
        let body = [Bytes::from(vec![b'x'; 1024 * 1024])];
        let write = session.write(HEAD.into(), &body);
        let written = tokio::time::timeout(Duration::from_secs(5), write).await;
        assert!(!written.expect("it is heard").unwrap(), "it is not written to its end");
        session.read_head().await.unwrap();
        assert_eq!(session.head().unwrap().status, 413);
        refusing.abort();
    }
}

/// The answer's head is no reason to keep the rest of the request back.
#[tokio::test]
async fn a_good_answer_that_begins_early_gets_the_whole_request() {
    let (stream, mut theirs) = duplex(64 * 1024);
    let answering = tokio::spawn(async move {
        theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        theirs.read_exact(&mut vec![0; HEAD.len() + 1024 * 1024]).await.unwrap();
        theirs.write_all(b"ok").await.unwrap();
        theirs
    });
    let mut session = Http1Session::new(Box::new(stream));
    assert!(session.write(HEAD.into(), &[Bytes::from(vec![b'x'; 1024 * 1024])]).await.unwrap());
    session.read_head().await.unwrap();
    assert_eq!(session.read_body().await.unwrap().unwrap(), "ok");
    assert!(session.is_ended());
    answering.await.unwrap();
}

#[tokio::test]
async fn head_and_body_leave_together() {
    let (stream, mut theirs) = duplex(64 * 1024);
    let mut session = Http1Session::new(Box::new(stream));
    let body = [Bytes::from_static(b"{\"a\":"), Bytes::from_static(b"1}")];
    assert!(session.write("POST / HTTP/1.1\r\n\r\n".into(), &body).await.unwrap());
    let mut came = [0; 1024];
    let length = theirs.read(&mut came).await.unwrap();
    assert_eq!(came[..length].escape_ascii().to_string(), r#"POST / HTTP/1.1\r\n\r\n{\"a\":1}"#);
}
