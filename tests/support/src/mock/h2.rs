//! The same provider over HTTP/2: one task a stream, the same scripts.

use std::{
    future::{pending, poll_fn},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::Notify, time::sleep};
use tokio_rustls::server::TlsStream;

use super::{
    Seen, State,
    http1::End,
    reply::{Framing, Reply, Step},
};

pub(super) async fn serve(io: TlsStream<TcpStream>, index: usize, state: Arc<Mutex<State>>) {
    let mut builder = h2::server::Builder::new();
    let handshake = builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 22);
    let streams = state.lock().streams;
    let handshake = handshake.max_concurrent_streams(streams.unwrap_or(1000));
    let Ok(mut connection) = handshake.handshake::<_, Bytes>(io).await else { return };
    let leaves = Arc::new(Notify::new());
    loop {
        let next = tokio::select! {
            next = connection.accept() => next,
            () = leaves.notified() => {
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = next else { return };
        tokio::spawn(one_request(request, respond, (index, leaves.clone()), state.clone()));
    }
}

async fn one_request(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    (connection, leaves): (usize, Arc<Notify>),
    state: Arc<Mutex<State>>,
) {
    let (parts, mut receive) = request.into_parts();
    let mut headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            (name.as_str().into(), String::from_utf8_lossy(value.as_bytes()).into())
        })
        .collect();
    if let Some(authority) = parts.uri.authority() {
        headers.push((":authority".into(), authority.to_string()));
    }
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
    let key = super::key_of(&headers);
    let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let head = format!("{} {path} HTTP/2\r\n{}\r\n", parts.method, lines.collect::<String>());
    let mut seen = Seen {
        connection,
        head: head.into_bytes(),
        method: parts.method.to_string(),
        path,
        headers,
        body: Vec::new(),
        key,
        at: Instant::now(),
        left: None,
        answered: false,
    };
    let reply = state.lock().reply(&seen);
    if !reply.early && read_body(&mut receive, &mut seen).await.is_err() {
        return;
    }
    let place = {
        let mut state = state.lock();
        state.seen.push(seen.clone());
        state.seen.len() - 1
    };
    let end = answer(&mut respond, &reply, &leaves).await;
    {
        let mut state = state.lock();
        if let Some(entry) = state.seen.get_mut(place).filter(|entry| entry.at == seen.at) {
            entry.answered = end.is_ok();
            entry.left = matches!(end, Err(End::Theirs)).then(Instant::now);
        }
    }
    if reply.deaf {
        // With `receive`, whose window stays shut.
        pending::<()>().await;
    } else if reply.early {
        // Dropped, it would reset the stream.
        let _ = read_body(&mut receive, &mut seen).await;
    }
}

async fn read_body(receive: &mut RecvStream, seen: &mut Seen) -> Result<(), End> {
    while let Some(chunk) = receive.data().await {
        let chunk = chunk.map_err(|_| End::Theirs)?;
        let _ = receive.flow_control().release_capacity(chunk.len());
        seen.body.extend_from_slice(&chunk);
    }
    Ok(())
}

async fn answer(
    respond: &mut SendResponse<Bytes>,
    reply: &Reply,
    leaves: &Notify,
) -> Result<(), End> {
    for step in &reply.before_head {
        match step {
            Step::Wait(time) => unless_left(respond, sleep(*time)).await?,
            Step::Gate(gate) => unless_left(respond, gate.pass()).await?,
            Step::Hang => unless_left(respond, pending()).await?,
            Step::Reset | Step::Close => {
                respond.send_reset(Reason::INTERNAL_ERROR);
                return Err(End::Ours);
            }
            Step::Refuse => {
                respond.send_reset(Reason::REFUSED_STREAM);
                return Err(End::Ours);
            }
            Step::GoAway => leaves.notify_one(),
            Step::Write(_) | Step::Bytewise(_) | Step::Endless(..) => {}
        }
    }
    let mut head = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        if !name.eq_ignore_ascii_case("connection") {
            head = head.header(name, value);
        }
    }
    if reply.framing == Framing::Length {
        let length = reply.content_length();
        head = head.header("content-length", length);
    }
    let head = head.body(()).expect("a valid head");
    let mut send = respond.send_response(head, false).map_err(|_| End::Theirs)?;
    for step in &reply.body {
        match step {
            Step::GoAway => leaves.notify_one(),
            step => body_step(&mut send, step).await?,
        }
    }
    send.send_data(Bytes::new(), true).map_err(|_| End::Theirs)
}

async fn body_step(send: &mut SendStream<Bytes>, step: &Step) -> Result<(), End> {
    let gone = |_| End::Theirs;
    match step {
        Step::Write(bytes) => send.send_data(bytes.clone(), false).map_err(gone),
        Step::Bytewise(bytes) => {
            for at in 0..bytes.len() {
                send.send_data(bytes.slice(at..=at), false).map_err(gone)?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        Step::Wait(time) => unless_reset(send, sleep(*time)).await,
        Step::Gate(gate) => unless_reset(send, gate.pass()).await,
        Step::Hang => unless_reset(send, pending()).await,
        Step::GoAway => Ok(()),
        Step::Reset | Step::Refuse | Step::Close => {
            // What was written before goes out first.
            sleep(std::time::Duration::from_millis(50)).await;
            send.send_reset(Reason::INTERNAL_ERROR);
            Err(End::Ours)
        }
        Step::Endless(bytes, pause) => loop {
            send.send_data(bytes.clone(), false).map_err(gone)?;
            unless_reset(send, sleep(*pause)).await?;
        },
    }
}

async fn unless_left(
    respond: &mut SendResponse<Bytes>,
    done: impl Future<Output = ()>,
) -> Result<(), End> {
    tokio::select! {
        () = done => Ok(()),
        _ = poll_fn(|cx| respond.poll_reset(cx)) => Err(End::Theirs),
    }
}

async fn unless_reset(
    send: &mut SendStream<Bytes>,
    done: impl Future<Output = ()>,
) -> Result<(), End> {
    tokio::select! {
        () = done => Ok(()),
        _ = poll_fn(|cx| send.poll_reset(cx)) => Err(End::Theirs),
    }
}
