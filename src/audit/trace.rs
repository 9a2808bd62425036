//! The trace that a client's own comment names.

/// What the client's own comment says of its trace (`traceparent='…'` as sqlcommenter writes it, the last one in the
/// text), if it has the form of W3C Trace Context §3.2.
pub(super) fn traceparent(text: &[u8]) -> Option<&str> {
    const KEY: &[u8] = b"traceparent='";
    const LENGTH: usize = 55;
    // A searcher for the whole key costs more to make than a text's quotes to look at.
    let mut quotes = memchr::memrchr_iter(b'\'', text).map(|quote| quote.saturating_add(1));
    let at = quotes.find(|&behind| text.get(..behind).is_some_and(|text| text.ends_with(KEY)))?;
    let end = at.checked_add(LENGTH)?;
    let value = std::str::from_utf8(text.get(at..end)?).ok().filter(|_| text.get(end) == Some(&b'\''))?;
    let mut parts = value.split('-').map(str::len);
    let formed = [2, 32, 16, 2].into_iter().all(|length| parts.next() == Some(length)) && parts.next().is_none();
    let hex = value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    (formed && hex).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_from_a_comment_that_has_its_form() {
        const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let of = |text: String| traceparent(text.as_bytes()).map(str::to_owned);
        assert_eq!(of(format!("select 1 /*a='b',traceparent='{TRACE}'*/")), Some(TRACE.to_owned()));
        assert_eq!(of(format!("select 1 /*traceparent='x',traceparent='{TRACE}',z='1'*/")), Some(TRACE.to_owned()));
        for wrong in
            [TRACE.to_uppercase(), format!("{TRACE}0"), TRACE.replace('-', "0"), "00".to_owned(), String::new()]
        {
            assert_eq!(of(format!("select 1 /*traceparent='{wrong}'*/")), None, "{wrong}");
        }
    }
}
