use proptest::{collection::vec, prelude::*};

use super::*;

type Seen = (Vec<u8>, Option<String>, Option<Vec<u8>>, bool);

fn seen(event: &Event) -> Seen {
    (
        event.raw.to_vec(),
        event.name().map(str::to_owned),
        event.data().map(<[u8]>::to_vec),
        event.complete,
    )
}

fn read(chunks: &[&[u8]]) -> Vec<Seen> {
    let mut splitter = Splitter::default();
    let mut events = Vec::new();
    for chunk in chunks {
        splitter.push(Bytes::copy_from_slice(chunk));
        events.extend(splitter.by_ref().map(|event| seen(&event.unwrap())));
    }
    events.extend(splitter.finish().map(|event| seen(&event)));
    events
}

/// Name and data of the events a browser would dispatch.
fn dispatched(input: &str) -> Vec<(Option<String>, String)> {
    read(&[input.as_bytes()])
        .into_iter()
        .filter(|event| event.3)
        .filter_map(|event| Some((event.1, String::from_utf8(event.2?).unwrap())))
        .collect()
}

fn messages(input: &str) -> Vec<String> {
    dispatched(input).into_iter().map(|(_, data)| data).collect()
}

#[test]
fn examples_of_the_specification() {
    assert_eq!(messages("data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
    assert_eq!(
        messages(
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n"
        ),
        ["first event", "second event"]
    );
    assert_eq!(messages("data\n\ndata\ndata\n\ndata:"), ["", "\n"]);
    assert_eq!(messages("data:test\n\ndata: test\n\n"), ["test", "test"]);
}

#[test]
fn all_line_ends_mean_the_same() {
    let text = "event: a\n: note\ndata: x\ndata: y\n\n\ndata: z\n\n";
    let expected = dispatched(text);
    assert_eq!(expected, [(Some("a".into()), "x\ny".into()), (None, "z".into())]);
    assert_eq!(dispatched(&text.replace('\n', "\r\n")), expected);
    assert_eq!(dispatched(&text.replace('\n', "\r")), expected);
}

#[test]
fn fields_are_matched_whole() {
    assert!(messages("data2: x\n\nxdata: x\n\nDATA: x\n\n data: x\n\n").is_empty());
    assert_eq!(dispatched("event: a\nevent:\ndata: x\n\n"), [(None, "x".into())]);
    assert_eq!(dispatched("event: a\n\ndata: x\n\n"), [(None, "x".into())]);
}

#[test]
fn a_byte_order_mark_counts_only_at_the_start() {
    assert_eq!(messages("\u{feff}data: x\n\n\u{feff}data: y\n\n"), ["x"]);
    assert_eq!(messages("\u{feff}\ndata: x\n\n"), ["x"]);
    assert_eq!(messages("\u{feff}\u{feff}data: x\n\n"), Vec::<String>::new());
    assert_eq!(read(&[b"\xEF\xBB"])[0].0, b"\xEF\xBB");
}

#[test]
fn what_is_left_at_the_end_can_be_judged() {
    let events = read(&[b"data: x\n\ndata: [DONE]"]);
    assert_eq!(events[1], (b"data: [DONE]".to_vec(), None, Some(b"[DONE]".to_vec()), false));
    let events = read(&[b"data: x\r\n\r"]);
    assert_eq!(events, [(b"data: x\r\n\r".to_vec(), None, Some(b"x".to_vec()), true)]);
    assert!(read(&[b"data: x\n\n"])[0].3);
    assert!(Splitter::default().finish().is_none());
}

#[test]
fn an_event_within_one_read_is_not_copied() {
    let chunk = Bytes::from_static(b"data: one\n\ndata: two\n\n");
    let mut splitter = Splitter::default();
    splitter.push(chunk.clone());
    for event in splitter {
        let event = event.unwrap();
        assert!(chunk.as_ptr_range().contains(&event.raw.as_ptr()));
        assert!(chunk.as_ptr_range().contains(&event.data().unwrap().as_ptr()));
    }
}

#[test]
fn an_endless_event_is_an_error_however_it_comes() {
    let line = vec![b'a'; MAX_EVENT - 2];
    let mut exact = line.clone();
    exact.extend_from_slice(b"\n\n");
    for size in [1000, MAX_EVENT + 10] {
        let mut splitter = Splitter::default();
        let mut take = |bytes: &[u8]| {
            let mut results = Vec::new();
            for chunk in bytes.chunks(size) {
                splitter.push(Bytes::copy_from_slice(chunk));
                results.extend(splitter.by_ref().map(|event| event.map(|event| event.raw.len())));
            }
            results
        };
        assert_eq!(take(&exact), [Ok(MAX_EVENT)]);
        assert_eq!(take(&[&line[..], b"a\n\n"].concat()), [Err(TooLong)]);
        assert_eq!(take(b"data: x\n\n"), []);
    }
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\n\r\n",
        "data:",
        "data: ",
        "data",
        "event: ",
        ":",
        " ",
        "x",
        "{\"a\":1}",
        "\u{feff}",
        "é",
        "😀",
        "id: 1",
        "[DONE]",
    ]);
    let bytes = piece.prop_map(|piece| piece.as_bytes().to_vec());
    let wild = any::<u8>().prop_map(|byte| vec![byte]);
    vec(prop_oneof![20 => bytes, 1 => wild], 0..60).prop_map(|pieces| pieces.concat())
}

/// The specification's own algorithm, line by line over the whole input.
fn by_the_book(input: &[u8]) -> Vec<Vec<u8>> {
    let input = input.strip_prefix(BYTE_ORDER_MARK).unwrap_or(input);
    let (mut events, mut lines, mut line) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    while at < input.len() {
        match input[at] {
            b'\r' | b'\n' => {
                at += usize::from(input[at..].starts_with(b"\r\n"));
                lines.push(std::mem::take(&mut line));
            }
            byte => line.push(byte),
        }
        at += 1;
    }
    let mut data: Option<Vec<u8>> = None;
    for line in lines {
        if line.is_empty() {
            events.extend(data.take());
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if &line[..colon] == b"data" {
            data = Some(data.map_or(value.to_vec(), |data| [&data[..], b"\n", value].concat()));
        }
    }
    events
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(input in pieces(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = read(&[&input]);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.push(input.len());
        cuts.sort_unstable();
        let mut from = 0;
        let chunks: Vec<_> = cuts
            .iter()
            .map(|cut| &input[std::mem::replace(&mut from, *cut)..*cut])
            .collect();
        prop_assert_eq!(&read(&chunks), &whole);
        let bytes: Vec<_> = input.chunks(1).collect();
        prop_assert_eq!(&read(&bytes), &whole);
        let joined: Vec<u8> = whole.iter().flat_map(|event| event.0.clone()).collect();
        prop_assert_eq!(&joined, &input);
    }

    #[test]
    fn data_is_what_the_specification_says(input in pieces()) {
        let ours: Vec<_> =
            read(&[&input]).into_iter().filter(|event| event.3).filter_map(|event| event.2).collect();
        prop_assert_eq!(ours, by_the_book(&input));
    }
}
