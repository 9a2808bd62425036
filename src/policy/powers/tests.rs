//! What goes to the instance of what a client asks for at its start, and what is refused.

use super::*;

fn pairs(given: &[(&str, &str)]) -> Parameters {
    given.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn applied(powers: &Powers, given: &[(&str, &str)]) -> Result<Parameters, String> {
    powers.apply(&pairs(given)).map(|startup| startup.parameters).map_err(|overreach| overreach.to_string())
}

fn one_of(values: &[&str]) -> Power {
    Power::OneOf(values.iter().map(|&value| value.to_owned()).collect())
}

/// Every spelling by which PostgreSQL takes `role` at the start.
const SPELLINGS: [(&str, &str); 13] = [
    ("role", "dba"),
    ("ROLE", "dba"),
    ("options", "-c role=dba"),
    ("options", "-crole=dba"),
    ("options", "--role=dba"),
    ("options", "--RoLe=dba"),
    ("options", r"-\c ro\le=dba"),
    ("options", r"\-\-r\ole=dba"),
    ("options", "-c geqo=off\t-c\x0brole=dba"),
    ("options", "-Ec role=dba"),
    ("options", "-E-role=dba"),
    ("options", "-c application_name=-- -c role=dba"),
    ("options", "-c role="),
];

#[test]
fn who_a_session_acts_as_is_refused_in_every_spelling_where_no_rule_says_otherwise() {
    for given in SPELLINGS {
        let refused = applied(&Powers::default(), &[("application_name", "psql"), given]);
        assert_eq!(refused, Err("set role at its start".to_owned()), "{given:?}");
        let allowed = Powers::default().with("role", Power::Allow);
        assert_eq!(applied(&allowed, &[given]), Ok(pairs(&[given])), "{given:?}");
    }
    for given in [("session_authorization", "dba"), ("options", "--session-authorization=dba"), ("role", "none")] {
        assert!(applied(&Powers::default(), &[given]).is_err(), "{given:?}");
    }
}

#[test]
fn everything_else_passes_byte_for_byte() {
    let given = [
        ("application_name", ""),
        ("search_path", "scratch, pg_catalog"),
        ("options", "  -c statement_timeout=7s --geqo=off -S 64"),
        ("options", ""),
        ("my.own", "kept"),
        ("roles", "x"),
        ("replication", "database"),
    ];
    assert_eq!(applied(&Powers::default(), &given), Ok(pairs(&given)));
}

#[test]
fn options_that_postgresql_would_not_start_with_are_refused() {
    for options in ["role=dba", "-c", "-c role", "-x -c role=dba", "-- -c role=dba"] {
        let refused = applied(&Powers::default(), &[("options", options)]);
        assert_eq!(refused, Err("start with these options".to_owned()), "{options}");
    }
}

#[test]
fn listed_values_are_compared_as_bytes() {
    let powers = Powers::default().with("role", one_of(&["reporting", "Audit"]));
    for (value, allowed) in [
        ("reporting", true),
        ("Audit", true),
        ("audit", false),
        ("reporting ", false),
        ("\"reporting\"", false),
        ("", false),
    ] {
        let escaped = format!("-c role={}", value.replace(' ', "\\ "));
        for given in [("role", value), ("options", escaped.as_str())] {
            assert_eq!(applied(&powers, &[given]).is_ok(), allowed, "{given:?}");
        }
    }
    let refused = powers.apply(&pairs(&[("role", "dba")])).unwrap_err();
    assert_eq!((refused.setting.as_str(), refused.allowed.len()), ("role", 2));
    assert_eq!(refused.to_string(), "set role at its start to that value");
}

#[test]
fn what_is_fixed_is_said_once_and_last_whatever_the_client_says() {
    let powers = Powers::default()
        .with("search_path", Power::Fixed("orders".to_owned()))
        .with("role", Power::Fixed("reporting".to_owned()));
    let fixed = [("role", "reporting"), ("search_path", "orders")];
    assert_eq!(applied(&powers, &[]), Ok(pairs(&fixed)));
    let given = [
        ("Search_Path", "evil"),
        ("options", "-c search-path=evil -c geqo=off --search_path=worse -c my.x=a\\ b"),
        ("role", "dba"),
        ("DateStyle", "German"),
    ];
    let kept = [("options", "-c geqo=off -c my.x=a\\ b"), ("DateStyle", "German"), fixed[0], fixed[1]];
    assert_eq!(applied(&powers, &given), Ok(pairs(&kept)));
}

#[test]
fn who_the_session_acts_as_is_known() {
    let powers = Powers::default().with("role", Power::Allow).with("session_authorization", Power::Allow);
    for (given, role) in [
        (vec![], None),
        (vec![("role", "a")], Some("a")),
        (vec![("options", "-c role=a -c Role=b")], Some("b")),
        (vec![("role", "a"), ("options", "-c role=b")], Some("a")),
        (vec![("role", "a"), ("ROLE", "b")], Some("b")),
    ] {
        let startup = powers.apply(&pairs(&given)).unwrap();
        assert_eq!((startup.role.as_deref(), startup.session_authorization), (role, None), "{given:?}");
    }
    let fixed = powers.with("role", Power::Fixed("c".to_owned()));
    assert_eq!(fixed.apply(&pairs(&[("role", "a")])).unwrap().role.as_deref(), Some("c"));
}

#[test]
fn options_can_be_refused_and_so_can_all_that_is_not_named() {
    let powers = Powers::default().without_options();
    assert_eq!(applied(&powers, &[("options", "--geqo=off")]), Err("start with these options".to_owned()));
    assert!(applied(&powers, &[("options", " "), ("geqo", "off")]).is_ok());

    let powers =
        Powers::default().without_others().with("application_name", Power::Allow).with("work_mem", Power::Allow);
    for (given, expected) in [
        (("application_name", "x"), Ok(())),
        (("options", "-c application_name=x -S 64"), Ok(())),
        (("replication", "true"), Ok(())),
        (("geqo", "off"), Err("set geqo at its start")),
        (("options", "--geqo=off"), Err("set geqo at its start")),
        (("options", "-F"), Err("start with these options")),
        (("options", "-E"), Err("start with these options")),
    ] {
        assert_eq!(applied(&powers, &[given]).map(drop), expected.map_err(str::to_owned), "{given:?}");
    }
}

#[test]
fn a_letter_does_not_go_round_a_word_on_its_setting() {
    for power in [Power::Refuse, one_of(&["64"]), Power::Fixed("64".to_owned())] {
        let powers = Powers::default().with("work_mem", power.clone());
        assert_eq!(applied(&powers, &[("options", "-S 64")]), Err("set work_mem at its start".to_owned()), "{power:?}");
        let older = applied(&powers, &[("Sort_Mem", "65")]);
        assert!(older.is_err() || older == Ok(pairs(&[("work_mem", "64")])), "{power:?}: {older:?}");
    }
}

#[test]
fn a_refusal_repeats_names_of_settings_and_nothing_else() {
    let powers = Powers::default().without_others();
    let token = format!("-c {}=x", "eyJhbGciOiJSUzI1NiJ9.".repeat(4));
    for given in [("options", token.as_str()), ("options", "-c a\x01b=c"), ("options", "-c =x")] {
        let refused = applied(&powers, &[given]).unwrap_err();
        assert_eq!(refused, "set something that is no setting's name at its start", "{given:?}");
    }
}

proptest::proptest! {
    /// Whatever the options: no word of theirs about `role` reaches the instance when that is fixed.
    #[test]
    fn nothing_said_of_a_fixed_setting_gets_through(text in "[-\\\\ crole=EFS\t]{0,60}") {
        let powers = Powers::default().with("role", Power::Fixed("x".to_owned()));
        if let Ok(startup) = powers.apply(&[(b"options".to_vec(), text.into_bytes())]) {
            let passed = options::parse(&startup.parameters[0].1).unwrap();
            for switch in passed {
                if let Switch::Setting { name, .. } = switch {
                    proptest::prop_assert!(!name.eq_ignore_ascii_case(b"role"));
                }
            }
            proptest::prop_assert_eq!(startup.role.as_deref(), Some("x"));
        }
    }
}
