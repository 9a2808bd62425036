//! The comment in front of every statement that says who asked.
//!
//! `/*app='…',caller='…',oid='…',tid='…'*/ `: a sqlcommenter comment (keys sorted, values percent-encoded), at
//! byte 0, the same for the whole session. Made from the verified identity alone.
//!
//! Invariant: every byte of a value is in `[A-Za-z0-9._~%-]`, so that no value can end the comment, open another
//! one, or mean something else under any `client_encoding`.

use crate::identity::IdentityFacts;
use std::fmt::Write;
use std::sync::Arc;

/// The most of one value that the tag holds, in encoded bytes; a label is cut, ids are shorter.
const MAX_VALUE_BYTES: usize = 192;

/// A session's tag, or none where the config turns it off. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tag(Option<Arc<[u8]>>);

impl Tag {
    /// The tag of this caller.
    pub fn of(facts: &IdentityFacts) -> Self {
        let tag = format!(
            "/*app='{}',caller='{}',oid='{}',tid='{}'*/ ",
            encode(&facts.app),
            encode(&facts.label),
            encode(&facts.object_id),
            encode(facts.tenant.as_str()),
        );
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
    /// tag is ASCII, so its bytes are its characters (`parser_errposition`, `parse_node.c`). A position inside the
    /// tag cannot be; it becomes 1.
    pub fn untag_position(&self, position: &[u8]) -> Option<Vec<u8>> {
        let position: usize = std::str::from_utf8(position).ok()?.parse().ok()?;
        let moved = position.checked_sub(self.bytes().len()).filter(|moved| *moved > 0).unwrap_or(1);
        Some(moved.to_string().into_bytes())
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986 §2.3), cut between escapes.
fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        let safe = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-');
        let width = if safe { 1 } else { 3 };
        if out.len().saturating_add(width) > MAX_VALUE_BYTES {
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
    //! A caller for tests.

    #![allow(clippy::unwrap_used, reason = "a test's own names are names")]

    use crate::identity::{CallerKind, IdentityFacts};
    use crate::names::{IssuerName, TenantId};
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
            roles: None,
            claims: BTreeMap::new(),
            token_id: None,
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::analyst;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_tag_names_the_caller_in_sorted_keys() {
        let tag = Tag::of(&analyst());
        assert_eq!(
            std::str::from_utf8(tag.bytes()).unwrap(),
            "/*app='8d1e2f3a-4b5c-4d6e-8f70-8192a3b4c5d6',caller='analyst%40contoso.example',\
             oid='0a1b2c3d-0000-4000-8000-000000000001',tid='6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91'*/ "
        );
    }

    #[test]
    fn positions_move_back_by_the_tags_length() {
        let tag = Tag::of(&analyst());
        let at = |n: usize| (tag.bytes().len() + n).to_string().into_bytes();
        assert_eq!(tag.untag_position(&at(8)), Some(b"8".to_vec()));
        assert_eq!(tag.untag_position(&at(0)), Some(b"1".to_vec()));
        assert_eq!(tag.untag_position(b"3"), Some(b"1".to_vec()));
        assert_eq!(tag.untag_position(b"x"), None);
        assert_eq!(Tag::none().untag_position(b"8"), Some(b"8".to_vec()));
    }

    proptest! {
        #[test]
        fn no_identity_value_can_end_the_comment(label in ".*", app in ".*") {
            let tag = Tag::of(&IdentityFacts { label, app, ..analyst() });
            let text = std::str::from_utf8(tag.bytes()).unwrap();
            let inside = text.strip_prefix("/*").unwrap().strip_suffix("*/ ").unwrap();
            prop_assert!(inside.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~%-='," .contains(&b)));
            prop_assert_eq!(inside.matches('\'').count(), 8);
            prop_assert!(text.len() < 4 * MAX_VALUE_BYTES + 40);
        }
    }
}
