//! Long texts: what is recorded of them before it leaves, and what becomes of one that cannot be.

use super::super::tag::testing::{analyst, tag};
use super::super::testing::recorder;
use super::tests::{Client, digests, frame, frames};
use super::*;
use crate::audit::{DEFAULT_MAX_TEXT_BYTES, Recording, TextDigest, Urgency};
use base64::Engine;
use proptest::prelude::*;

/// A client of whose texts so many bytes are recorded.
fn client(tag: Tag, max_text_bytes: u32) -> Client {
    let mut client = Client::new(tag);
    client.recorder = recorder(&client.log).recording(Recording { max_text_bytes, ..Recording::default() });
    client
}

/// The text of an event as the log has it, and whether it says that it goes on.
fn recorded(client: &Client, event: u64) -> (Vec<u8>, bool) {
    let (mut text, mut cut) = (Vec::new(), false);
    for line in client.log.lines() {
        let of_event = line["id"].as_str().is_some_and(|id| id.ends_with(&format!(".{event}")));
        if !of_event || !(line["event"] == "begin" || line["event"] == "text") {
            continue;
        }
        if line["event"] == "text" {
            assert_eq!(line["offset"], text.len(), "a gap");
            assert!(!cut, "more behind the end");
            cut |= line["cut"] == true;
        }
        let part = match line["text_base64"].as_str() {
            Some(part) => base64::engine::general_purpose::STANDARD.decode(part).unwrap(),
            None => line["text"].as_str().unwrap_or_default().as_bytes().to_vec(),
        };
        assert!(part.len() <= MAX_TEXT_BYTES);
        text.extend(part);
    }
    (text, cut)
}

/// Sends in pieces; after each, what has left of the text is recorded.
fn send_in_pieces(client: &mut Client, message: &[u8], text: &[u8], pieces: &[usize]) {
    let text_at = memchr::memmem::find(message, text).unwrap();
    let (mut held, mut left, mut left_untagged) = (Vec::new(), 0, 0);
    let mut rest = message;
    for piece in pieces.iter().cycle() {
        let (now, later) = rest.split_at((*piece).min(rest.len()));
        rest = later;
        held.extend_from_slice(now);
        loop {
            let (out, taken, _) = client.send(&held);
            held.drain(..taken);
            (left, left_untagged) = (left + out.len(), left_untagged + taken);
            let (known, cut) = recorded(client, 0);
            let of_text = left_untagged.saturating_sub(text_at).min(text.len());
            assert!(cut || known.len() >= of_text, "{of_text} bytes have left and {} are recorded", known.len());
            if taken == 0 || held.is_empty() {
                break;
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    assert!(held.is_empty() && left >= message.len());
}

fn text_of(length: usize, alphabet: &str) -> Vec<u8> {
    let mut text: Vec<u8> = b"select ".iter().copied().chain(alphabet.bytes().cycle()).take(length).collect();
    // Each place another byte, so that a part in the wrong place is seen.
    for (at, byte) in text.iter_mut().enumerate().skip(7).filter(|(_, byte)| byte.is_ascii()) {
        *byte = b'a' + u8::try_from(at % 23).unwrap();
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever the reads: before its bytes leave a text is in the log up to them; what is there is the text, to the cap,
    /// and past it length and SHA-256 tell it.
    #[test]
    fn the_parts_of_a_text_are_the_text(
        around in prop::sample::select(vec![
            MAX_TEXT_BYTES, INSPECTED_BYTES, 2 * MAX_TEXT_BYTES, 2 * MAX_TEXT_BYTES + INSPECTED_BYTES, 200_000,
        ]),
        offset in -6..=6_isize,
        alphabet in prop::sample::select(vec!["abc", "a\u{e9}", "\u{20ac}", "x\u{1d11e}yz"]),
        spoilt in prop::option::of(any::<prop::sample::Index>()),
        max in prop::sample::select(vec![64 << 10, (64 << 10) + 1, 131_073, 150_000, DEFAULT_MAX_TEXT_BYTES]),
        pieces in prop::collection::vec(prop_oneof![1..=5_usize, 4_000..=9_000_usize, 60_000..=140_000_usize], 1..5),
        parse: bool,
        tagged: bool,
    ) {
        prop_assume!(pieces.iter().sum::<usize>() / pieces.len() > 500);
        let mut text = text_of(around.checked_add_signed(offset).unwrap(), alphabet);
        if let Some(spoilt) = spoilt {
            let at = spoilt.index(text.len());
            text[at] = 0xff;
        }
        let message = if parse {
            frame(b'P', &[b"s\0", text.as_slice(), b"\0\0\x02\0\0\0\x17\0\0\0\x17"].concat())
        } else {
            frame(b'Q', &[text.as_slice(), b"\0"].concat())
        };
        let mut client = client(if tagged { tag(&analyst()) } else { Tag::none() }, max);
        send_in_pieces(&mut client, &message, &text, &pieces);
        let (known, cut) = recorded(&client, 0);
        prop_assert!(text.starts_with(&known));
        prop_assert_eq!(cut, text.len() > max as usize);
        prop_assert_eq!(known == text, !cut);
        prop_assert!(!cut || known.len() + 3 >= max as usize && known.len() <= max as usize);
        let end = if parse { "1" } else { "CZ" };
        let run = [frame(b'B', b"\0s\0\0\0\0\0\0\0"), frame(b'E', b"\0\0\0\0\0"), frame(b'S', b"")].concat();
        client.send(if parse { &run } else { b"" });
        let told = digests(&mut client, if parse { "12CZ" } else { end });
        let expected = (text.len() > MAX_TEXT_BYTES).then(|| (TextDigest::of(&text).sha256(), text.len() as u64));
        prop_assert_eq!(told, vec![expected]);
    }
}

fn long_query(length: usize) -> Vec<u8> {
    frame(b'Q', &[text_of(length, "a").as_slice(), b"\0"].concat())
}

#[test]
fn what_of_a_text_the_log_does_not_take_does_not_leave_and_the_session_must_end() {
    let whole = long_query(200_000);
    for more in [&b""[..], &frame(b'Q', b"SELECT 1\0"), &frame(b'S', b""), &frame(b'Q', b"ROLLBACK\0")] {
        for end in [150_000, whole.len()] {
            let mut client = client(Tag::none(), DEFAULT_MAX_TEXT_BYTES);
            client.send(&whole[..100_000]);
            client.log.fail(true);
            let rest = [&whole[100_000..end], if end == whole.len() { more } else { b"" }].concat();
            let (out, ..) = client.send(&rest);
            assert!(out.is_empty(), "{} bytes left", out.len());
            assert!(client.side.must_end() && client.side.has_left_in_part(), "the server waits for the rest");
            assert_eq!(client.side.take_missed().refused, [(Refusal::Unrecorded, 1)].into());
            client.tracker.finish(Instant::now());
            assert_eq!(client.tracker.take_ends().len(), 1, "of what began, and of nothing behind it");
        }
    }
}

/// A reserve that takes ends does not take texts, nor what comes with them.
#[test]
fn a_rollback_behind_a_text_does_not_take_it_along() {
    let whole = long_query(200_000);
    let mut client = client(Tag::none(), DEFAULT_MAX_TEXT_BYTES);
    client.send(&whole[..100_000]);
    client.log.fill(true);
    let mut output = Output::default();
    let rest = [&whole[100_000..], &frame(b'Q', b"ROLLBACK\0")].concat();
    client.side.process(&rest, &mut client.tracker, &mut client.recorder, &mut output);
    assert_eq!(client.side.urgency(), Urgency::Normal);
}

#[test]
fn a_text_that_begins_in_a_read_that_the_log_does_not_take_is_refused_whole() {
    let mut client = client(Tag::none(), DEFAULT_MAX_TEXT_BYTES);
    client.log.fail(true);
    let whole = long_query(200_000);
    let (out, ..) = client.send(&whole[..150_000]);
    assert_eq!(frames(&out), [('Q', "\"NAME\"\0".to_owned())]);
    assert!(!client.side.must_end() && !client.side.has_left_in_part());
    client.log.fail(false);
    let (out, ..) = client.send(&[&whole[150_000..], &frame(b'Q', b"SELECT 1\0")].concat());
    assert_eq!(frames(&out), [('Q', "SELECT 1\0".to_owned())]);
    assert_eq!(client.log.lines().iter().filter(|line| line["event"] == "text").count(), 0);
}

/// Past what is recorded of it a message goes on whatever the log does; what the log did not take is forgotten, and what
/// streams while it takes nothing is measured once.
#[test]
fn past_the_cap_a_message_goes_on_and_its_digest_outlives_a_log_that_takes_nothing() {
    let text = text_of(300_000, "a");
    let long = long_query(300_000);
    let mut client = client(Tag::none(), 64 << 10);
    client.send(&long[..100_000]);
    assert_eq!(recorded(&client, 0), (text[..65_536].to_vec(), true));
    client.log.fail(true);
    assert_eq!(client.send(&long[100_000..200_000]).0, &long[100_000..200_000]);
    let rest = [&long[200_000..], &long[..90_000]].concat();
    let (out, taken, _) = client.send(&rest);
    let (passed, refused) = out.split_at(long.len() - 200_000);
    assert!(taken == rest.len() && passed == &long[200_000..] && frames(refused) == [('Q', "\"NAME\"\0".to_owned())]);
    client.log.fail(false);
    client.send(&long[90_000..]);
    assert!(client.side.following.is_none() && !client.side.must_end());
    let told = digests(&mut client, "CZ");
    assert_eq!(told, [Some((TextDigest::of(&text).sha256(), 300_000))], "the refused one has no end line");
}

/// What is refused for another reason has its begin line, and no more of its text: it does not leave.
#[test]
fn no_more_is_recorded_of_what_does_not_leave() {
    let mut client = client(tag(&analyst()), DEFAULT_MAX_TEXT_BYTES);
    let body = frame::LARGE_MESSAGE - 4;
    let start = [&Header { kind: b'Q', body }.encode(), vec![b'x'; 170_000].as_slice()].concat();
    client.send(&start);
    let (known, cut) = recorded(&client, 0);
    assert_eq!((known.len(), cut), (MAX_TEXT_BYTES, false));
}
