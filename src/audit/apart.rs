//! A begin record that stands for several messages, as a record for each.

use serde_json::{Map, Value};

/// The messages of an execution by the extended protocol, as records name them.
const IN_ORDER: [&str; 3] = ["parse", "bind", "execute"];
/// What only the first of them says, which gives the text or names the event that has it.
const OF_THE_FIRST: [&str; 8] =
    ["text", "text_base64", "text_sealed", "text_bytes", "text_of", "text_doubtful", "role_changes", "traceparent"];
/// What only a Bind says.
const OF_A_BIND: [&str; 4] = ["parameters", "parameters_sealed", "parameters_left_out", "parameters_malformed"];

/// The messages that a begin record stands for, in their order.
pub fn messages(begin: &Map<String, Value>) -> Vec<&str> {
    let member = |name| begin.get(name).and_then(Value::as_str);
    let last = member("stage").unwrap_or_default();
    let Some(first) = member("since") else { return vec![last] };
    let from_first = IN_ORDER.into_iter().skip_while(|stage| *stage != first);
    let mut all: Vec<&str> = from_first.take_while(|stage| *stage != last).collect();
    all.push(last);
    all
}

/// The record that each of them would have alone.
pub fn apart(begin: &Map<String, Value>) -> Vec<Map<String, Value>> {
    let stages = messages(begin);
    let alone = |(place, stage): (usize, &&str)| {
        let says = |name: &str| match name {
            "since" => false,
            "portal" => *stage != "parse",
            _ if OF_THE_FIRST.contains(&name) => place == 0,
            _ if OF_A_BIND.contains(&name) => *stage == "bind",
            _ => true,
        };
        let mut own: Map<_, _> =
            begin.iter().filter(|(name, _)| says(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
        own.insert("stage".to_owned(), (*stage).into());
        own
    };
    if stages.len() == 1 { vec![begin.clone()] } else { stages.iter().enumerate().map(alone).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_message_says_its_own() {
        let record = |value: Value| value.as_object().cloned().unwrap();
        let joined = json!({"id": "s.1", "stage": "execute", "since": "parse", "text": "select $1", "text_bytes": 9,
                            "statement": "s", "portal": "p", "parameters": [{"value": "1"}], "tagged": true});
        let alone = [
            json!({"id": "s.1", "stage": "parse", "text": "select $1", "text_bytes": 9, "statement": "s", "tagged": true}),
            json!({"id": "s.1", "stage": "bind", "statement": "s", "portal": "p", "parameters": [{"value": "1"}],
                   "tagged": true}),
            json!({"id": "s.1", "stage": "execute", "statement": "s", "portal": "p", "tagged": true}),
        ];
        assert_eq!(apart(&record(joined)), alone.map(record));
        let joined = json!({"id": "s.2", "stage": "execute", "since": "bind", "text_of": "s.1", "statement": "s"});
        let alone = [
            json!({"id": "s.2", "stage": "bind", "text_of": "s.1", "statement": "s"}),
            json!({"id": "s.2", "stage": "execute", "statement": "s"}),
        ];
        assert_eq!(apart(&record(joined)), alone.map(record));
        for alone in [json!({"stage": "query", "text": "x"}), json!({"stage": "execute", "portal": "p"})] {
            assert_eq!(apart(&record(alone.clone())), [record(alone)]);
        }
    }
}
