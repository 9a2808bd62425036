//! Rules that decide for nobody, compared with every caller there is in a small world.

use super::*;
use proptest::prelude::*;

const IDS: [&str; 3] = ["o1", "o2", "o3"];
const APPS: [&str; 3] = ["a1", "a2", "a3"];
const GROUPS: [&str; 2] = ["g1", "g2"];
const ROLES: [&str; 2] = ["r1", "r2"];
/// Networks that meet at edges, contain each other, and fill each other up.
const NETWORKS: [&str; 7] =
    ["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "11.0.0.0/8", "2001:db8::/32", "2001:db8::/33"];
/// One address at least of each part that these networks make.
const ADDRESSES: [&str; 10] = [
    "9.255.255.255",
    "10.0.0.0",
    "10.1.0.0",
    "10.2.0.0",
    "10.127.255.255",
    "10.255.255.255",
    "11.0.0.1",
    "12.0.0.0",
    "2001:db8:1::",
    "2001:db8:8000::",
];

fn some(entries: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![3 => Just(Vec::new()), 2 => proptest::sample::subsequence(entries, 1..=entries.len())]
}

fn whos() -> impl Strategy<Value = Who> {
    let kind = prop_oneof![Just(None), Just(Some(CallerKind::User)), Just(Some(CallerKind::App))];
    let guest = prop_oneof![2 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let lists = (some(&IDS[..2]), some(&APPS[..2]), some(&GROUPS), some(&ROLES), some(&NETWORKS));
    (kind, guest, lists).prop_map(|(kind, guest, (ids, apps, groups, roles, networks))| Who {
        kind,
        guest,
        object_ids: list(&ids),
        apps: list(&apps),
        groups: list(&groups),
        roles: list(&roles),
        networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
    })
}

/// Every set of these, and the claim that is absent.
fn claims(of: &[&str; 2]) -> [Option<Vec<String>>; 5] {
    [None, Some(Vec::new()), Some(list(&of[..1])), Some(list(&of[1..])), Some(list(of))]
}

/// Every caller there is, each at each address.
fn everybody(population: &Population) -> Vec<(IdentityFacts, Option<IpAddr>)> {
    let mut people = vec![person("somebody", None)];
    let mut cross =
        |change: &dyn Fn(&IdentityFacts) -> Vec<IdentityFacts>| people = people.iter().flat_map(change).collect();
    cross(&|facts| population.kinds.iter().map(|kind| IdentityFacts { kind: *kind, ..facts.clone() }).collect());
    cross(&|facts| {
        let guest = facts.kind == CallerKind::User && population.unsaid.is_empty();
        let guests = if guest { vec![false, true] } else { vec![false] };
        guests.into_iter().map(|guest| IdentityFacts { guest, ..facts.clone() }).collect()
    });
    cross(&|facts| IDS.iter().map(|id| IdentityFacts { object_id: (*id).to_owned(), ..facts.clone() }).collect());
    cross(&|facts| APPS.iter().map(|app| IdentityFacts { app: (*app).to_owned(), ..facts.clone() }).collect());
    cross(&|facts| claims(&GROUPS).map(|groups| IdentityFacts { groups, ..facts.clone() }).into());
    cross(&|facts| claims(&ROLES).map(|roles| IdentityFacts { roles, ..facts.clone() }).into());
    let addresses: Vec<Option<IpAddr>> =
        ADDRESSES.iter().map(|address| Some(address.parse().unwrap())).chain([None]).collect();
    let at = |facts: IdentityFacts| addresses.iter().map(move |address| (facts.clone(), *address)).collect::<Vec<_>>();
    people.into_iter().flat_map(at).collect()
}

fn population() -> impl Strategy<Value = Population> {
    let kinds = prop_oneof![
        3 => Just(vec![CallerKind::User, CallerKind::App]),
        1 => Just(vec![CallerKind::User]),
        1 => Just(vec![CallerKind::App]),
    ];
    (kinds, any::<bool>())
        .prop_map(|(kinds, guests)| Population { kinds, unsaid: if guests { Vec::new() } else { vec!["guest"] } })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Both ways: a rule that decides for somebody is never called shadowed, and one that decides for nobody always is.
    #[test]
    fn a_rule_is_called_shadowed_exactly_where_nobody_gets_to_it(
        whos in proptest::collection::vec(whos(), 1..5), population in population(),
    ) {
        let orders = DatabaseAlias::parse("orders").unwrap();
        let rules: Vec<Rule> =
            whos.into_iter().enumerate().map(|(n, who)| rule(&format!("r{n}"), &["orders"], who, account("a"))).collect();
        let mut met = vec![false; rules.len()];
        let mut decides = vec![false; rules.len()];
        for (caller, address) in everybody(&population) {
            let mut matching = (0..rules.len()).filter(|n| rules[*n].matches(&caller, &orders, address));
            if let Some(first) = matching.next() {
                (decides[first], met[first]) = (true, true);
                matching.for_each(|n| met[n] = true);
            }
        }
        for (index, _) in rules.iter().enumerate() {
            let found = reach(&rules, index, &orders, &population, &mut MAX_COMPARISONS.clone());
            match &found {
                Reach::Somebody => prop_assert!(decides[index], "{index} decides for nobody: {rules:#?}"),
                Reach::Nobody => prop_assert!(!met[index], "{index} is met: {rules:#?}"),
                Reach::Shadowed(takers) => {
                    prop_assert!(met[index] && !decides[index], "{index} is {found:?}: {rules:#?}");
                    prop_assert!(!takers.is_empty() && takers.iter().all(|taker| *taker < index));
                }
            }
        }
    }
}

#[test]
fn other_issuers_and_databases_take_nobody() {
    let everyone = || rule("first", &["orders"], Who::default(), account("a"));
    let second = || rule("second", &["orders"], Who::default(), account("a"));
    let all = Population { kinds: vec![CallerKind::User], unsaid: vec!["guest"] };
    let orders = DatabaseAlias::parse("orders").unwrap();
    let mut budget = MAX_COMPARISONS;
    assert_eq!(reach(&[everyone(), second()], 1, &orders, &all, &mut budget), Reach::Shadowed(vec![0]));
    let foreign = Rule { issuer: IssuerName::parse("fabrikam").unwrap(), ..everyone() };
    assert_eq!(reach(&[foreign, second()], 1, &orders, &all, &mut budget), Reach::Somebody);
    let elsewhere = Rule { databases: vec![DatabaseAlias::parse("billing").unwrap()], ..everyone() };
    assert_eq!(reach(&[elsewhere, second()], 1, &orders, &all, &mut budget), Reach::Somebody);
    assert_eq!(
        reach(&[everyone(), second()], 1, &orders, &all, &mut 1),
        Reach::Somebody,
        "what is not known is not said"
    );
}
