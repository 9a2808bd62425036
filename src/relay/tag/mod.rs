//! The comment in front of every statement that says who asked.
//!
//! `/*app='…',caller='…',oid='…',tid='…'*/ ` by default: a sqlcommenter comment (keys sorted, values percent-encoded),
//! at byte 0, the same for the whole session and for the caller's every session of that database. Made from the
//! verified identity and the policy alone, by the config's template.
//!
//! Invariant: every byte of a value is in `[A-Za-z0-9._~%-]`, so that no value can end the comment, open another
//! one, or mean something else under any `client_encoding`.

mod template;

pub use template::{Longest, MAX_TAG_BYTES, SOURCES, Source, Template, Value, check_key};

use crate::identity::IdentityFacts;
use crate::names::{DatabaseAlias, RuleName};
use aws_lc_rs::digest;
use std::fmt::Write;
use std::sync::Arc;

/// The most of a label that the tag holds, in encoded bytes; past it the label is cut, since it is for reading only.
const MAX_LABEL_BYTES: usize = 128;
/// The most of an id, in encoded bytes. A longer one (Entra has none) keeps its start, and its SHA-256 keeps it apart
/// from others.
const MAX_ID_BYTES: usize = 100;
/// What stands between both. Encoding never makes lower-case escapes, so that no id can spell it.
const CUT: &str = "%7e";

/// A session's tag, or none where the config turns it off. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tag(Option<Arc<[u8]>>);

/// Whose tag it is, and by which rule in which database.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The caller.
    pub caller: &'a IdentityFacts,
    /// The rule that decided.
    pub rule: &'a RuleName,
    /// The database as the config calls it.
    pub database: &'a DatabaseAlias,
}

impl Tag {
    /// The tag of this caller.
    pub fn of(template: &Template, subject: Subject<'_>) -> Self {
        let Subject { caller, rule, database } = subject;
        let tag = template.fill(|source| match source {
            Source::App => encode_id(&caller.app),
            Source::Label => encode(&caller.label, MAX_LABEL_BYTES),
            Source::ObjectId => encode_id(&caller.object_id),
            Source::Tenant => encode_id(caller.tenant.as_str()),
            Source::Issuer => encode(caller.issuer.as_str(), usize::MAX),
            Source::Rule => encode(rule.as_str(), usize::MAX),
            Source::Database => encode(database.as_str(), usize::MAX),
        });
        Self(Some(tag.into_bytes().into()))
    }

    /// No tag: statements leave as they came.
    pub fn none() -> Self {
        Self(None)
    }

    /// The bytes that go in front; empty where there is no tag.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether statements are changed.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// An error position in the client's own text, from one in the tagged text. Both count characters from 1; the
    /// tag is ASCII, so its bytes are its characters (`parser_errposition`, `parse_node.c`). Nothing can be wrong inside
    /// a comment: a position there counts in another text, such as one that a function gave to PREPARE, and stays.
    pub fn untag_position(&self, position: &[u8]) -> Option<Vec<u8>> {
        let position: usize = std::str::from_utf8(position).ok()?.parse().ok()?;
        let moved = position.checked_sub(self.bytes().len()).filter(|moved| *moved > 0)?;
        Some(moved.to_string().into_bytes())
    }
}

/// How long a name is in a tag, in bytes.
pub fn encoded_bytes(name: &str) -> usize {
    encode(name, usize::MAX).len()
}

/// An id that differs from another one still does when it is cut.
fn encode_id(id: &str) -> String {
    let whole = encode(id, usize::MAX);
    if whole.len() <= MAX_ID_BYTES {
        return whole;
    }
    let digest = digest::digest(&digest::SHA256, id.as_bytes());
    let start = encode(id, MAX_ID_BYTES.saturating_sub(CUT.len()).saturating_sub(2 * digest::SHA256_OUTPUT_LEN));
    let mut out = format!("{start}{CUT}");
    for byte in digest.as_ref() {
        // Writing to a `String` cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Percent-encodes everything but unreserved characters (RFC 3986 §2.3), cut between escapes.
fn encode(value: &str, limit: usize) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        let safe = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-');
        let width = if safe { 1 } else { 3 };
        if out.len().saturating_add(width) > limit {
            break;
        }
        if safe {
            out.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(any(test, fuzzing))]
pub(crate) mod testing {
    //! A caller and a tag for tests.

    #![allow(clippy::unwrap_used, reason = "a test's own names are names")]

    use super::{Subject, Tag, Template};
    use crate::identity::{CallerKind, IdentityFacts};
    use crate::names::{DatabaseAlias, IssuerName, RuleName, TenantId};
    use crate::time::Timestamp;
    use std::collections::BTreeMap;

    /// `analyst@contoso.example`.
    pub fn analyst() -> IdentityFacts {
        IdentityFacts {
            issuer: IssuerName::parse("contoso").unwrap(),
            issuer_url: "https://login.example/6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91/v2.0".to_owned(),
            tenant: TenantId::parse("6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91").unwrap().into(),
            object_id: "0a1b2c3d-0000-4000-8000-000000000001".to_owned(),
            kind: CallerKind::User,
            guest: false,
            label: "analyst@contoso.example".to_owned(),
            app: "8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6".to_owned(),
            groups: None,
            overage: false,
            asked_groups: None,
            roles: None,
            claims: BTreeMap::new(),
            token_id: None,
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::MAX,
        }
    }

    /// The tag of a caller by the default template.
    pub fn tag(caller: &IdentityFacts) -> Tag {
        of(&Template::default(), caller)
    }

    /// The tag of a caller by this template.
    pub fn of(template: &Template, caller: &IdentityFacts) -> Tag {
        let (rule, database) = (RuleName::parse("orders-people").unwrap(), DatabaseAlias::parse("orders").unwrap());
        Tag::of(template, Subject { caller, rule: &rule, database: &database })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{analyst, of, tag};
    use super::*;
    use proptest::prelude::*;

    fn text(tag: &Tag) -> &str {
        std::str::from_utf8(tag.bytes()).unwrap()
    }

    #[test]
    fn the_tag_names_the_caller_in_sorted_keys() {
        assert_eq!(
            text(&tag(&analyst())),
            "/*app='8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6',caller='analyst%40contoso.example',\
             oid='0a1b2c3d-0000-4000-8000-000000000001',tid='6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91'*/ "
        );
        assert_eq!(
            text(&of(&Template::query_insights(), &analyst())),
            "/*action='analyst%40contoso.example',application='8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6',\
             controller='6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91',route='0a1b2c3d-0000-4000-8000-000000000001'*/ "
        );
    }

    #[test]
    fn a_template_of_ones_own_is_filled_in() {
        let value = |text: &str| Value::parse(text).unwrap();
        let keys = vec![
            ("who".to_owned(), value("{issuer}:{tenant}/{object_id}")),
            ("by".to_owned(), value("{rule} on {database}")),
        ];
        let template = Template::new(keys).unwrap();
        let expected = "/*by='orders-people%20on%20orders',who='contoso%3A6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91\
                        %2F0a1b2c3d-0000-4000-8000-000000000001'*/ ";
        assert_eq!(text(&of(&template, &analyst())), expected);
    }

    #[test]
    fn positions_move_back_by_the_tags_length_and_those_of_other_texts_stay() {
        let tag = tag(&analyst());
        let at = |n: usize| (tag.bytes().len() + n).to_string().into_bytes();
        assert_eq!(tag.untag_position(&at(8)), Some(b"8".to_vec()));
        assert_eq!(tag.untag_position(&at(1)), Some(b"1".to_vec()));
        for elsewhere in [at(0), b"3".to_vec(), b"0".to_vec(), b"x".to_vec(), b"-3".to_vec(), b"".to_vec()] {
            assert_eq!(tag.untag_position(&elsewhere), None);
        }
        assert_eq!(Tag::none().untag_position(b"8"), Some(b"8".to_vec()));
    }

    /// Subjects of other providers may be as long as a claim; the tag must not make two of them one.
    #[test]
    fn long_ids_stay_apart_and_the_tag_short() {
        let long = "s".repeat(1000);
        let with = |object_id: String| IdentityFacts { object_id, ..analyst() };
        let (one, other) = (tag(&with(format!("{long}1"))), tag(&with(format!("{long}2"))));
        assert_ne!(one, other);
        let forged = text(&one).split("oid='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        assert_ne!(tag(&with(forged.clone())), one, "an id that is spelled like the cut one");
        assert_ne!(tag(&with(forged.replace(CUT, "~"))), one);
        let facts = IdentityFacts { app: long.clone(), label: long.clone(), ..with(long) };
        for template in [Template::default(), Template::query_insights()] {
            let length = of(&template, &facts).bytes().len();
            assert!(length <= MAX_TAG_BYTES && length <= template.longest(Longest::default()), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_identity_value_can_end_the_comment(label in ".*", app in ".*", object_id in ".*") {
            let tag = tag(&IdentityFacts { object_id, label, app, ..analyst() });
            let text = text(&tag);
            let inside = text.strip_prefix("/*").unwrap().strip_suffix("*/ ").unwrap();
            prop_assert!(inside.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~%-='," .contains(&b)));
            prop_assert_eq!(inside.matches('\'').count(), 8);
            prop_assert!(text.len() <= MAX_TAG_BYTES);
        }

        #[test]
        fn no_text_of_the_config_can_end_it_either(value in "[^{}]{0,60}") {
            let template = Template::new(vec![("k".to_owned(), Value::parse(&value).unwrap())]).unwrap();
            let tag = of(&template, &analyst());
            let inside = text(&tag).strip_prefix("/*k='").unwrap().strip_suffix("'*/ ").unwrap();
            prop_assert!(inside.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~%-" .contains(&b)));
        }
    }
}
