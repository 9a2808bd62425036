//! Texts, and what they say of who the session acts as.

use super::*;

fn role(to: &str) -> RoleChange {
    RoleChange { setting: Acting::Role, to: Some(to.to_owned()), reset: false, local: false }
}

fn session(to: &str) -> RoleChange {
    RoleChange { setting: Acting::SessionAuthorization, ..role(to) }
}

fn local(change: RoleChange) -> RoleChange {
    RoleChange { local: true, ..change }
}

fn reset(setting: Acting) -> RoleChange {
    RoleChange { setting, to: None, reset: true, local: false }
}

/// It says so, and not as whom.
fn unnamed(setting: Acting) -> RoleChange {
    RoleChange { setting, to: None, reset: false, local: false }
}

#[test]
fn every_statement_that_says_so_is_seen() {
    let (acting, login) = (Acting::Role, Acting::SessionAuthorization);
    for (text, expected) in [
        ("SET ROLE reporting", vec![role("reporting")]),
        ("set role Reporting;", vec![role("reporting")]),
        ("SET ROLE \"Report\"\"ing\"", vec![role("Report\"ing")]),
        ("SET ROLE 'Reporting'", vec![role("Reporting")]),
        ("SET ROLE E'a\\'b'", vec![role("a'b")]),
        ("SET ROLE $x$dba$x$", vec![role("dba")]),
        ("SET ROLE NONE", vec![role("none")]),
        ("/* a; */ -- b\n SET/**/SESSION ROLE dba", vec![role("dba")]),
        ("SET LOCAL ROLE dba", vec![local(role("dba"))]),
        ("SET role TO dba", vec![role("dba")]),
        ("SET \"role\" = 'dba'", vec![role("dba")]),
        ("SET LOCAL \"Role\" TO dba", vec![local(role("dba"))]),
        ("SET role TO DEFAULT", vec![reset(acting)]),
        ("SET SESSION AUTHORIZATION dba", vec![session("dba")]),
        ("SET SESSION SESSION AUTHORIZATION 'dba'", vec![session("dba")]),
        ("SET LOCAL SESSION AUTHORIZATION dba", vec![local(session("dba"))]),
        ("SET SESSION AUTHORIZATION DEFAULT", vec![reset(login)]),
        ("set session_authorization = dba", vec![session("dba")]),
        ("SET SESSION session_authorization TO dba", vec![session("dba")]),
        ("RESET ROLE", vec![reset(acting)]),
        ("reset \"role\"", vec![reset(acting)]),
        ("RESET SESSION AUTHORIZATION", vec![reset(login)]),
        ("RESET session_authorization", vec![reset(login)]),
        ("DISCARD ALL", vec![reset(login)]),
        ("BEGIN; SET ROLE a; SELECT 1; SET ROLE b", vec![role("a"), role("b")]),
        ("select ';' ; set role dba", vec![role("dba")]),
        ("SELECT set_config('role', 'dba', false)", vec![role("dba")]),
        ("select 1, pg_catalog.set_config ( 'ROLE' , 'dba' , true ) from t", vec![local(role("dba"))]),
        ("select \"set_config\"(E'role', 'dba', false)", vec![role("dba")]),
        ("PREPARE p AS SELECT set_config('role', $1, false)", vec![unnamed(acting)]),
        ("select set_config('session_authorization', 'd' || 'ba', false)", vec![unnamed(login)]),
        ("SET ROLE $1", vec![unnamed(acting)]),
        ("SET ROLE U&\"dba\"", vec![unnamed(acting)]),
        ("SET ROLE", vec![unnamed(acting)]),
        ("SET ROLE dba\0SELECT", vec![role("dba")]),
    ] {
        assert_eq!(role_changes(text.as_bytes()), expected, "{text}");
    }
    let long = format!("SET ROLE {}", "r".repeat(70));
    assert_eq!(role_changes(long.as_bytes()), [role(&"r".repeat(63))], "as PostgreSQL cuts it");
    let many = role_changes(format!("{}SET ROLE dba", "SET ROLE none;".repeat(MAX_CHANGES)).as_bytes());
    assert_eq!((many.len(), many.last()), (MAX_CHANGES, Some(&change(Acting::Role, None, false))), "no last one hides");
    assert_eq!(role_changes("SET ROLE a;".repeat(MAX_CHANGES).as_bytes()).pop(), Some(role("a")));
    for hidden in [
        r#"SET U&"r\006fle" TO dba"#,
        "select set_config(setting_name => 'role', new_value => 'dba', is_local => false)",
        "select set_config(new_value := 'dba', is_local := false, setting_name := 'role')",
    ] {
        assert_eq!(
            role_changes(hidden.as_bytes()).first().map(|change| change.setting),
            Some(Acting::Role),
            "{hidden}"
        );
    }
}

#[test]
fn what_says_nothing_of_it_is_left_alone() {
    for text in [
        "",
        "select role from users",
        "select 'SET ROLE dba'",
        "select $$;SET ROLE dba;$$",
        "select $a$;SET ROLE dba;$b$;SET ROLE x",
        "-- SET ROLE dba",
        "/* ; SET ROLE dba */ select 1",
        "select \"; SET ROLE dba\"",
        "update t set role = 'dba'",
        "alter role dba set search_path to x",
        "alter user dba set role to y",
        "create role dba",
        "SET search_path TO role",
        "SET my.role TO dba",
        "SET roles TO dba",
        "RESET ALL",
        "DISCARD PLANS",
        "show role",
        "select set_config('search_path', 'role', false)",
        "select my_set_config('role', 'dba', false)",
        "select set_config(name, 'role', false)",
        "select '\0; SET ROLE dba",
        "authorization",
        "discard",
    ] {
        assert_eq!(role_changes(text.as_bytes()), [], "{text}");
    }
}

#[test]
fn a_backslash_in_a_string_hides_nothing_whatever_the_session_makes_of_it() {
    let escaping = "select 'a\\''; SET ROLE dba --'";
    let plain = "select 'a\\'; SET ROLE dba --'";
    for text in [escaping, plain] {
        assert_eq!(role_changes(text.as_bytes()), [role("dba")], "{text}");
    }
}

proptest::proptest! {
    /// The quick look misses nothing, wherever a word stands.
    #[test]
    fn what_has_a_word_has_a_part_of_it(
        before in ".{0,40}",
        word in proptest::sample::select(vec!["role", "authorization", "discard", "&\""]),
        large in proptest::num::u16::ANY,
        behind in ".{0,40}",
    ) {
        let either = |(place, letter): (usize, char)| {
            if large >> place & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
        };
        let word: String = word.chars().enumerate().map(either).collect();
        let text = format!("{before}{word}{behind}");
        proptest::prop_assert!(has_word(text.as_bytes()) && has_part(text.as_bytes()), "{}", text);
        let other = format!("{before}{behind}");
        proptest::prop_assert!(has_part(other.as_bytes()) || !has_word(other.as_bytes()), "{}", other);
    }

    #[test]
    fn arbitrary_bytes_never_panic(text in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
        let _ = role_changes(&[b"set role ".as_slice(), &text].concat());
    }

    /// Whatever stands in front, as long as it is whole statements.
    #[test]
    fn it_is_found_behind_anything_that_is_whole(
        front in proptest::collection::vec("[a-z =(),1-9]{0,8}|'[^'\\\\\0]{0,6}'|\"[^\"\0]{0,6}\"|[$][$][^$\0]{0,6}[$][$]|/[*][a-z';]{0,6}[*]/|--[a-z';]{0,6}\n|\u{e9}", 0..8),
    ) {
        let text = format!("select {} ; SET ROLE dba", front.join(" "));
        proptest::prop_assert_eq!(role_changes(text.as_bytes()).pop(), Some(role("dba")), "{}", text);
    }
}
