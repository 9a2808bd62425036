//! What token checks get wrong, each with the tests that fail when ours does, in the order in which a token is checked.
//!
//! Sources: Microsoft identity platform, "Access tokens" (validation) and "Secure applications and APIs by validating
//! claims"; RFC 8725 (JWT best current practices); CVEs of JWT libraries. A test looks that every test is there.

/// Step, what goes wrong, tests.
const CHECKLIST: &[(&str, &str, &[&str])] = &[
    ("form", "a token of any length, shape or alphabet", &["what_is_no_token_is_refused"]),
    (
        "form",
        "duplicate JSON keys, read one way here and another way at Google",
        &["repeated_names_are_refused_at_any_depth"],
    ),
    ("transport", "a token over plaintext", &["without_tls_nobody_is_asked_for_a_token"]),
    (
        "transport",
        "tokens in logs, errors and records",
        &["errors_never_quote_the_token", "nothing_secret_shows_at_trace_in_any_outcome"],
    ),
    (
        "header",
        "alg none; HS256 with the public key",
        &[
            "alg_none_and_hs256_and_every_other_algorithm_are_refused",
            "alg_none_and_hs256_with_the_public_key_are_refused_before_any_fetch",
            "a_symmetric_key_never_verifies",
        ],
    ),
    (
        "header",
        "a key of one kind for an algorithm of another",
        &["a_key_checks_its_own_algorithm_only", "a_key_is_for_the_algorithms_that_its_issuer_may_use"],
    ),
    ("header", "jku, x5u, x5c or an embedded jwk is followed", &["keys_and_addresses_in_the_token_are_ignored"]),
    (
        "header",
        "crit, nonce (Graph) and typ are ignored",
        &["header_members_that_change_the_rules_are_refused", "a_graph_token_is_named_as_one"],
    ),
    ("issuer", "the token chooses what is fetched", &["strangers_are_refused_without_a_fetch"]),
    ("issuer", "an issuer that only begins right", &["an_issuer_that_is_not_exactly_ours_is_refused"]),
    ("issuer", "iss or aud as arrays", &["arrays_and_other_types_are_no_strings"]),
    (
        "key",
        "kid as a path; a fetch for each unknown kid",
        &["a_new_key_is_fetched_once_and_unknown_ids_are_no_hammer"],
    ),
    (
        "key",
        "another kind of account's key signs for the tenant",
        &["a_key_of_another_issuer_does_not_speak_for_ours", "a_key_that_signs_for_other_tenants_is_refused"],
    ),
    (
        "key",
        "a withdrawn key goes on working",
        &[
            "a_key_that_is_withdrawn_stops_working_after_the_next_refresh",
            "a_known_token_dies_with_its_key_and_with_its_verifier",
        ],
    ),
    (
        "signature",
        "claims or header changed after signing",
        &["only_the_key_that_signed_verifies_and_only_what_it_signed"],
    ),
    (
        "signature",
        "every attempt costs RSA",
        &[
            "a_storm_of_reconnects_costs_one_check",
            "the_repetition_of_a_bad_token_costs_no_check_and_is_told_the_same",
            "different_bad_tokens_of_one_address_are_limited_and_good_ones_that_are_known_are_not",
        ],
    ),
    (
        "tenant",
        "tid is not tied to iss",
        &["a_tenant_that_is_not_the_issuers_is_refused", "each_of_several_tenants_speaks_for_itself_alone"],
    ),
    ("tenant", "sub or oid compared across tenants", &["the_same_ids_in_another_tenant_are_somebody_else"]),
    (
        "version",
        "v1.0 and v2.0 mixed up",
        &["v1_tokens_are_refused", "v1_tokens_are_accepted_where_the_config_says_so_and_nothing_else_is"],
    ),
    (
        "audience",
        "aud not checked; tokens for Microsoft's own APIs (confused deputy)",
        &[
            "other_audiences_are_refused",
            "a_v1_audience_is_the_id_or_the_uri_with_or_without_a_slash",
            "what_would_accept_others_tokens_is_refused",
        ],
    ),
    (
        "times",
        "nbf ignored; leeway without limit; required claims that need not be there",
        &[
            "times_hold_to_the_second_with_the_leeway_and_no_more",
            "the_leeway_is_the_issuers",
            "claims_that_validation_needs_must_be_there",
        ],
    ),
    ("times", "tokens of long ago", &["a_token_that_is_too_old_is_refused_though_it_has_not_expired"]),
    (
        "subject",
        "e-mail or user name as identity (nOAuth)",
        &["email_and_whatever_people_can_set_is_no_subject", "names_and_addresses_say_nothing_of_who_it_is"],
    ),
    (
        "subject",
        "an app's token passes for a person's; an ID token for an access token",
        &["an_app_never_passes_for_a_person", "an_id_token_is_not_an_access_token"],
    ),
    (
        "subject",
        "a guest passes for a member",
        &["any_sign_of_a_guest_makes_one", "a_guest_arrives_as_themselves_only_where_a_rule_names_them_by_object_id"],
    ),
    (
        "subject",
        "any client app; any identity of the tenant",
        &[
            "only_allowed_apps_present_tokens",
            "only_allowed_kinds_of_caller_are_accepted",
            "people_need_the_scope_and_software_the_role_that_the_issuer_asks_for",
        ],
    ),
    (
        "groups",
        "overage read as no groups",
        &["groups_overage_is_unknown_and_never_none", "an_absent_claim_meets_no_condition"],
    ),
];

#[cfg(test)]
mod tests {
    use super::CHECKLIST;

    /// Where the tests stand.
    const SOURCES: [&str; 12] = [
        include_str!("jws.rs"),
        include_str!("json.rs"),
        include_str!("jwks.rs"),
        include_str!("tests.rs"),
        include_str!("key_cache_tests.rs"),
        include_str!("signatures_tests.rs"),
        include_str!("claims/entra_tests.rs"),
        include_str!("../config/tests/issuers.rs"),
        include_str!("../policy/matching.rs"),
        include_str!("../policy/tests/mod.rs"),
        include_str!("../../proto-tests/tests/refusals.rs"),
        include_str!("../../proto-tests/tests/secrets.rs"),
    ];

    /// Whether the line of this function stands right below a test attribute.
    fn is_under_test(source: &str, head: &str) -> bool {
        let lines: Vec<&str> = source.lines().map(str::trim).collect();
        lines
            .windows(2)
            .any(|pair| pair[1].contains(head) && (pair[0] == "#[test]" || pair[0].starts_with("#[tokio::test")))
    }

    #[test]
    fn every_row_has_its_tests() {
        let is_test = |name: &&str| {
            let head = format!("fn {name}(");
            SOURCES.iter().any(|source| is_under_test(source, &head))
        };
        let missing: Vec<&str> =
            CHECKLIST.iter().flat_map(|(_, _, tests)| *tests).copied().filter(|t| !is_test(t)).collect();
        assert_eq!(missing, [""; 0], "tests that are not there");
        assert!(CHECKLIST.iter().all(|(_, _, tests)| !tests.is_empty()), "a row without a test");
    }
}
