//! The sanitizer with every cut of the same bytes, and with endless input.

use proptest::prelude::*;

use super::*;

/// The output for a body that arrives in these pieces.
fn sanitized(framing: Framing, pieces: &[&[u8]]) -> (String, Option<LimitExceeded>) {
    let mut sanitizer = SseSanitizer::new(framing);
    let mut out = Vec::new();
    for piece in pieces {
        if let Err(limit) = sanitizer.feed(piece, &mut out) {
            return (String::from_utf8(out).unwrap(), Some(limit));
        }
    }
    sanitizer.finish(&mut out);
    (String::from_utf8(out).unwrap(), None)
}

fn sse(body: &[u8]) -> String {
    sanitized(Framing::Sse, &[body]).0
}

#[test]
fn all_line_endings_are_accepted() {
    for end in ["\n", "\r", "\r\n"] {
        let body = format!("event: a{end}data: 1{end}data: 2{end}{end}data: 3{end}{end}");
        assert_eq!(
            sse(body.as_bytes()),
            "event: a\ndata: 1\ndata: 2\n\ndata: 3\n\n"
        );
    }
}

#[test]
fn only_known_fields_are_passed_on() {
    assert_eq!(sse(b"\xef\xbb\xbfdata: 1\n\n"), "data: 1\n\n");
    assert_eq!(sse(b"data:1\n\ndata:  2\n\n"), "data: 1\n\ndata:  2\n\n");
    assert_eq!(sse(b"data\n\n"), "data: \n\n");
    assert_eq!(
        sse(b": ping\n\n:\n\ndata: 1\n: in between\n\n"),
        "data: 1\n\n"
    );
    assert_eq!(
        sse(b"id: 7\nretry: x\ncomment: no\nodd\ndata: 1\n\n"),
        "data: 1\n\n"
    );
    assert_eq!(sse(b"id: 7\n\nunknown: 1\n\n\n\n"), "");
    assert_eq!(sse(b"event:\ndata: 1\n\n"), "event: message\ndata: 1\n\n");
    // Old servers' error field may follow an event without a blank line.
    assert_eq!(
        sse(b"data: 1\nerror: {}\ndata: 2\n\n"),
        "data: 1\n\nevent: error\ndata: {}\n\ndata: 2\n\n"
    );
    assert_eq!(sse(b"error\n\nerrors: 1\n\n"), "");
    assert_eq!(sse(b""), "");
}

#[test]
fn last_event_needs_no_blank_line() {
    for body in ["data: 1", "data: 1\n", "data: 1\r", "data: 1\r\n\r"] {
        assert_eq!(sse(body.as_bytes()), "data: 1\n\n", "{body:?}");
    }
}

#[test]
fn invalid_utf8_is_replaced() {
    assert_eq!(
        sse(b"data: a\xffb\xe2\x82\n\n"),
        "data: a\u{fffd}b\u{fffd}\n\n"
    );
    assert_eq!(sse("data: a€\n\n".as_bytes()), "data: a€\n\n");
}

#[test]
fn bare_json_becomes_an_event() {
    let error =
        b"data: {\"ok\":1}\n\n{\n  \"error\": {\n\n    \"message\": \"a } \\\" ] {\"\n  }\n}\ndata: {}\n\n";
    assert_eq!(
        sse(error),
        "data: {\"ok\":1}\n\ndata: {\ndata:   \"error\": {\ndata:     \"message\": \"a } \\\" ] {\"\ndata:   }\ndata: }\n\ndata: {}\n\n"
    );
    assert_eq!(sse(b"{\"error\":1}"), "data: {\"error\":1}\n\n");
    assert_eq!(
        sse(b"[{\"error\":1}\n]"),
        "data: [{\"error\":1}\ndata: ]\n\n"
    );
    // It is never joined to the event that it interrupts.
    assert_eq!(sse(b"data: 1\n{}\n"), "data: 1\n\ndata: {}\n\n");
}

#[test]
fn broken_bare_json_is_passed_on_at_once() {
    let mut sanitizer = SseSanitizer::new(Framing::Sse);
    let mut out = Vec::new();
    sanitizer.feed(b"{\"error\": \"cut\n", &mut out).unwrap();
    assert_eq!(out, b"data: {\"error\": \"cut\n\n");
    assert_eq!(sse(b"{\"a\":\ndata: 2\n\n"), "data: {\"a\":\n\ndata: 2\n\n");
    assert_eq!(sse(b"{\"a\":"), "data: {\"a\":\n\n");
}

#[test]
fn lines_become_events() {
    let body = b"\xef\xbb\xbf{\"a\":1}\r\n\r\n \n{\"b\n[]\nrubbish\n{\"c\":2}";
    assert_eq!(
        sanitized(Framing::Lines, &[body]).0,
        "data: {\"a\":1}\n\ndata: {\"b\n\ndata: []\n\ndata: rubbish\n\ndata: {\"c\":2}\n\n"
    );
}

#[test]
fn endless_line_is_not_buffered() {
    for framing in [Framing::Sse, Framing::Lines] {
        let mut sanitizer = SseSanitizer::new(framing);
        let mut out = Vec::new();
        let piece = [b'x'; 64 * 1024];
        let mut accepted = 0;
        while sanitizer.feed(&piece, &mut out).is_ok() {
            accepted += 1;
            assert!(sanitizer.line_buffer.capacity() <= 2 * MAX_EVENT_BYTES);
        }
        assert_eq!((accepted, out.len()), (4, 0));
    }
    let whole = vec![b'x'; 64 * 1024 * 1024];
    let mut sanitizer = SseSanitizer::new(Framing::Sse);
    assert_eq!(
        sanitizer.feed(&whole, &mut Vec::new()),
        Err(LimitExceeded::Event)
    );
    assert_eq!(sanitizer.line_buffer.capacity(), 0);
}

#[test]
fn event_is_bounded_for_any_number_of_lines() {
    let line = b"data: 0123456789\n";
    let (out, limit) = sanitized(Framing::Sse, &[&line.repeat(20_000)]);
    assert_eq!(limit, Some(LimitExceeded::Event));
    assert!(out.len() <= MAX_EVENT_BYTES + line.len());
    let nested = b"[\n".repeat(200_000);
    assert_eq!(
        sanitized(Framing::Sse, &[&nested]).1,
        Some(LimitExceeded::Event)
    );
    // Many small events are accepted, and so is a large one.
    let events = b"data: 0123456789\n\n".repeat(20_000);
    assert_eq!(sanitized(Framing::Sse, &[&events]).1, None);
    let large = [b"data: ".as_slice(), &[b'x'; 250 * 1024], b"\n\n"].concat();
    assert_eq!(sanitized(Framing::Sse, &[&large, &large]).1, None);
}

#[test]
fn body_is_bounded_including_keep_alives() {
    let pings = b": ping\n\n".repeat(1024);
    let mut sanitizer = SseSanitizer::new(Framing::Sse);
    let mut out = Vec::new();
    let mut accepted = 0;
    let limit = loop {
        match sanitizer.feed(&pings, &mut out) {
            Ok(()) => accepted += pings.len(),
            Err(limit) => break limit,
        }
    };
    assert_eq!(
        (accepted, limit, out.len()),
        (MAX_BODY_BYTES, LimitExceeded::Body, 0)
    );
}

#[test]
fn long_line_releases_its_memory() {
    let mut sanitizer = SseSanitizer::new(Framing::Sse);
    sanitizer
        .feed(&[b':'; 200 * 1024], &mut Vec::new())
        .unwrap();
    sanitizer.feed(b"\n", &mut Vec::new()).unwrap();
    assert!(sanitizer.line_buffer.capacity() <= MAX_RETAINED_LINE_BYTES);
}

/// Bodies whose output would differ if a cut was handled wrongly.
const EDGE_CASES: [&[u8]; 9] = [
    b"data: 1\r\rdata: 2\r\r\rdata: 3\r",
    b"data: 1\r\n\r\ndata: 2\r\n\r\n",
    b"data: 1\n\r\ndata: 2\r\n\ndata: 3\n\n\r\n",
    b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\ndata: \xef\xbb\xbf2\n\n",
    "data: a€😀é\n\nevent: ü\ndata: 本\n\n".as_bytes(),
    b"data: \xf0\x9f\x98\n\ndata: \xff\xe2\x82 \xc3\n\ndata: \xf0\x9f",
    b"event: a\ndata: 1\ndata\ndata:\ndata:  2\nid: 3\n: c\n\n",
    b"data: 1\n\n{\r\n \"error\": {\r\n\r\n \"m\": \"a\\\"}{\\\\\"\r\n }\r\n}\r\ndata: 2",
    b"[{\"a\": \"}\"},\n{\"b\": \"cut\n}]\nrest: 1\n{\n: ping\ndata: 1\n",
];

#[test]
fn output_does_not_depend_on_a_cut() {
    for framing in [Framing::Sse, Framing::Lines] {
        for body in EDGE_CASES {
            let whole = sanitized(framing, &[body]);
            for at in 0..=body.len() {
                let (head, tail) = body.split_at(at);
                assert_eq!(sanitized(framing, &[head, tail]), whole, "at {at}");
            }
            let single: Vec<&[u8]> = body.chunks(1).collect();
            assert_eq!(sanitized(framing, &single), whole);
        }
    }
}

/// Arbitrary bodies with a high share of bytes that matter to the sanitizer.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => prop::sample::select(vec![
            &b"\n"[..], b"\r", b"\r\n", b"\n\n", b"data: ", b"data:", b"event: ", b": c", b"id: 1", b"{", b"}", b"[", b"]",
            b"\"", b"\\", b"\xef\xbb\xbf", b"\xe2\x82\xac", b"\xe2", b"\x82", b"\xff", b"x", b" ",
        ]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn output_does_not_depend_on_any_cuts(
        body in body(),
        lines in any::<bool>(),
        cuts in prop::collection::vec(0usize..400, 0..12),
    ) {
        let framing = if lines { Framing::Lines } else { Framing::Sse };
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
        prop_assert_eq!(sanitized(framing, &pieces), sanitized(framing, &[&body]));
    }

    #[test]
    fn output_has_only_fields_and_blank_lines(body in body()) {
        let out = sse(&body);
        prop_assert!(!out.contains('\r') && !out.contains("\n\n\n") && !out.starts_with('\n'));
        prop_assert!(out.is_empty() || out.ends_with("\n\n"));
        for line in out.lines() {
            prop_assert!(line.is_empty() || line.starts_with("data: ") || line.starts_with("event: "), "{line:?}");
        }
    }
}
