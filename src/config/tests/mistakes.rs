//! One mistake each, and the one problem it makes.

use super::{edited, problems};

/// A line of the minimal file, what stands there instead, and the problem.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("address = \"127.0.0.1:5432\"", "address = 5432", "2: listen.address: must be a string, not an integer"),
    (
        "address = \"127.0.0.1:5432\"",
        "adress = \"127.0.0.1:5432\"",
        "2: listen.adress: is not a known key; did you mean \"address\"?",
    ),
    (
        "certificate = \"tls.crt\"",
        "certificate = \"none.crt\"",
        "3: listen.certificate: none.crt cannot be read: No such file or directory (os error 2)",
    ),
    (
        "certificate = \"tls.crt\"",
        "certificate = \"tls.key\"",
        "3: listen.certificate: tls.key has no -----BEGIN CERTIFICATE-----",
    ),
    ("certificate = \"tls.crt\"", "certificate = \".\"", "3: listen.certificate: . is a folder, not a file"),
    (
        "key = \"tls.key\"",
        "key = \"tls.crt\"",
        "4: listen.key: tls.crt has no usable -----BEGIN … PRIVATE KEY----- (encrypted keys are not)",
    ),
    (
        "key = \"tls.key\"",
        "key = \"other.key\"",
        "4: listen.key: does not belong to the first certificate of listen.certificate",
    ),
    (
        "folder = \"audit\"",
        "folder = \"no/audit\"",
        "7: audit.folder: the folder no does not exist; create it for the proxy's user, mode 0750",
    ),
    (
        "folder = \"audit\"",
        "folder = \"tls.key/a\"",
        "7: audit.folder: the folder tls.key does not exist; create it for the proxy's user, mode 0750",
    ),
    ("folder = \"audit\"", "folder = \"tls.key\"", "7: audit.folder: tls.key is not a folder"),
    (
        "folder = \"audit\"",
        "folder = \"audit\"\nkey = \"no.key\"",
        "8: audit.key: no.key is not there; make it with: pgpassport audit key --new no.key --name NAME",
    ),
    (
        "folder = \"audit\"",
        "folder = \"audit\"\nkey = \"tls.key\"",
        "8: audit.key: tls.key is not one line PRIVATE+KEY+NAME+HASH+DATA; `pgpassport audit key` makes one",
    ),
    (
        "folder = \"audit\"",
        "folder = \"audit\"\nkey = \"audit/a.key\"",
        "8: audit.key: is inside audit.folder: who takes the log would have its key too",
    ),
    (
        "folder = \"audit\"",
        "folder = \"audit\"\nanchors = []",
        "8: audit.anchors: is empty; leave it out or name at least one",
    ),
    (
        "folder = \"audit\"",
        "folder = \"audit\"\nanchors = [\"-\", \"no/a\"]",
        "8: audit.anchors[1]: the folder no does not exist; create it for the proxy's user, mode 0750",
    ),
    (
        "folder = \"audit\"",
        "folder = \"audit\"\nanchors = [{ witness = \"http://witness.contoso.example\", key = \"witness.example/w1+95dbf513+BOuS6v9oW+1BILTa31JtV/UOnJmOXjKUgZLf0fFWGbQB\" }]",
        "8: audit.anchors[0].witness: must be https://, or tokens would travel in the clear (http:// is for loopback)",
    ),
    (
        "folder = \"audit\"",
        "folder = \"audit\"\nanchors = [{ witness = \"https://witness.contoso.example\", key = \"witness+00000000+BA==\" }]",
        "8: audit.anchors[0].key: is not a witness's public key NAME+HASH+DATA for Ed25519 cosignatures (C2SP tlog-cosignature)",
    ),
    (
        "folder = \"audit\"",
        "folder = \"audit\"\nkeep = \"90d\"",
        "8: audit.keep: needs audit.anchors: records are deleted only once anchors have what covers them; leave it out to keep them for ever",
    ),
    (
        "folder = \"audit\"",
        "folder = \"audit\"\nanchors = [\"-\"]\nkeep = \"23h\"",
        "9: audit.keep: is out of bounds: 1440m to 36500d",
    ),
    (
        "folder = \"audit\"",
        "folder = \"audit\"\nsegment_bytes = 100",
        "8: audit.segment_bytes: is out of bounds: 4194304 to 1073741824",
    ),
    (
        "kind = \"azure-managed-identity\"",
        "kind = \"key-file\"",
        "10: own_identity.kind: must be \"azure-managed-identity\" or \"google-service-account-file\" or \"google-metadata\"",
    ),
    (
        "projects/1/locations/global/workloadIdentityPools/azure/providers/proxy",
        "locations/global/workforcePools/azure/providers/proxy",
        "12: own_identity.provider: is in a workforce pool, which is for people; a service account needs a workloadIdentityPools provider",
    ),
    (
        "tenant = \"6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91\"",
        "tenant = \"common\"",
        "16: issuer.contoso.tenant: is not a GUID",
    ),
    (
        "6f9b1c52-0f0e-4c0a-9d5c-2d6f3a7b8c91",
        "9188040d-6c67-4c5b-b112-36a304b66dad",
        "16: issuer.contoso.tenant: is the tenant of personal Microsoft accounts, which anybody can make",
    ),
    (
        "3b1f7c9e-5a44-4f0e-8a52-7f1d6d2c9b10",
        "api://pgpassport",
        "17: issuer.contoso.audience: is not a hyphenated GUID: v2.0 tokens carry the app registration's client id",
    ),
    (
        "[issuer.contoso]",
        "[issuer.contoso]\nauthority = \"http://login.contoso.example\"",
        "16: issuer.contoso.authority: must be https://, or tokens would travel in the clear (http:// is for loopback)",
    ),
    (
        "[instance.\"demo-project:europe-west1:orders\"]",
        "[instance.\"demo-project:europe-west1:orders\"]\nip_type = \"public-ip\"",
        "20: instance.\"demo-project:europe-west1:orders\".ip_type: must be \"public\" or \"private\" or \"psc\"",
    ),
    (
        "[instance.\"demo-project:europe-west1:orders\"]",
        "[instance.\"demo-project:europe-west1:orders\"]\nport = 5432",
        "20: instance.\"demo-project:europe-west1:orders\".port: is for path = \"direct\"; the connector's port is always 3307",
    ),
    (
        "[instance.\"demo-project:europe-west1:orders\"]",
        "[instance.\"demo-project:europe-west1:orders\"]\npath = \"direct\"\nport = 65536",
        "21: instance.\"demo-project:europe-west1:orders\".port: is out of bounds: 1 to 65535",
    ),
    (
        "[instance.\"demo-project:europe-west1:orders\"]",
        "[instance.\"demo-project:europe-west1:orders\"]\nlogin = \"password\"",
        "20: instance.\"demo-project:europe-west1:orders\".login: must be \"token-as-password\" or \"token-in-certificate\"",
    ),
    (
        "[database.orders]\ninstance = \"demo-project:europe-west1:orders\"",
        "[database.orders]\ninstance = \"demo-project:europe-west1:order\"",
        "22: database.orders.instance: names no [instance.…]: \"demo-project:europe-west1:order\" is not there; did you mean \"demo-project:europe-west1:orders\"?",
    ),
    ("name = \"people\"", "name = \"\"", "25: rule[0].name: is empty"),
    (
        "issuer = \"contoso\"",
        "issuer = \"fabrikam\"",
        "26: rule.people.issuer: names no [issuer.…]: \"fabrikam\" is not there",
    ),
    (
        "databases = [\"orders\"]",
        "databases = [\"orders\", \"Orders\"]",
        "27: rule.people.databases[1]: names no [database.…]: \"Orders\" is not there; did you mean \"orders\"?",
    ),
    (
        "databases = [\"orders\"]",
        "databases = []",
        "27: rule.people.databases: is empty; leave it out or name at least one",
    ),
    ("databases = [\"orders\"]", "databases = \"orders\"", "27: rule.people.databases: must be an array, not a string"),
    (
        "subject_claim = \"upn\" }",
        "subject_claim = \"upn\" }\nnetworks = []",
        "30: rule.people.networks: is empty; leave it out or name at least one",
    ),
    ("0c7a5f0e-4b5d-4f5e-9a3b-6f1f2d3e4a5b", "analysts", "28: rule.people.groups[0]: is not a hyphenated GUID"),
    (
        "subject_claim = \"upn\"",
        "subject_claim = \"email\"",
        "29: rule.people.grant.subject_claim: guests choose their own e-mail address, so `email` proves nobody; use `upn`, `oid` or `sub`",
    ),
    (
        "subject_claim = \"upn\"",
        "subject_claim = \"upn\", service_account = \"x\"",
        "29: rule.people.grant.service_account: is not a known key",
    ),
    (
        "locations/global/workforcePools/contoso/providers/entra",
        "projects/1/locations/global/workloadIdentityPools/a/providers/b",
        "29: rule.people.grant.provider: is in a workload pool, whose principals are no database users; a workforce grant needs a workforcePools provider",
    ),
    (
        "[listen]",
        "[listen]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.1.2.3/16\"]",
        "2: listen.trusted_proxies[1]: has bits behind its prefix; the network is 10.1.0.0/16",
    ),
    (
        "[listen]",
        "[listen]\ntrusted_proxies = [\"balancer.contoso.example\"]",
        "2: listen.trusted_proxies[0]: is not a network in CIDR form, such as \"10.0.0.0/8\" or \"10.0.0.7/32\"",
    ),
    (
        "[listen]",
        "[listen]\ntrusted_proxies = \"10.0.0.0/8\"",
        "2: listen.trusted_proxies: must be an array, not a string",
    ),
    (
        "[listen]",
        "[listen]\nproxy_protocol = \"required\"",
        "2: listen.proxy_protocol: needs listen.trusted_proxies: a header is read from those addresses only",
    ),
    (
        "[listen]",
        "[listen]\nproxy_protocol = \"v1\"\ntrusted_proxies = [\"10.0.0.0/8\"]",
        "2: listen.proxy_protocol: must be \"off\" or \"optional\" or \"required\"",
    ),
    ("[listen]", "[listen]\nproxy_protocol = true", "2: listen.proxy_protocol: must be a string, not a boolean"),
    ("[listen]", "[limits]\nlogins = 0\n[listen]", "2: limits.logins: is out of bounds: 1 to 100000"),
    ("[[rule]]", "[rule]", "24: rule: must be an array, not a table"),
    ("[listen]", "[listen]\n[limits]\nsessions = 0\n[listen2]", "3: limits.sessions: is out of bounds: 1 to 100000"),
    (
        "[listen]",
        "[deadlines]\ndial = \"10\"\n[listen]",
        "2: deadlines.dial: is not a duration such as \"500ms\", \"15s\" or \"2m\"",
    ),
    ("[listen]", "[deadlines]\ndial = \"2h\"\n[listen]", "2: deadlines.dial: is out of bounds: 10ms to 10m"),
    (
        "[listen]",
        "[admin]\naddress = \"127.0.0.1:5432\"\n[listen]",
        "1: admin.address: is in the way of listen.address: both take port 5432",
    ),
    (
        "[listen]",
        "[https]\nca_certificate = \"tls.key\"\n[listen]",
        "2: https.ca_certificate: tls.key has no -----BEGIN CERTIFICATE-----",
    ),
];

#[test]
fn each_problem_has_its_line_key_and_reason() {
    for (from, to, expected) in MISTAKES {
        let found = problems(&edited(from, to));
        assert!(found.iter().any(|problem| problem == expected), "expected\n    {expected}\nfound\n    {found:#?}");
        let alone = !to.contains("[listen2]") && !to.contains("adress") && !to.contains("[[rule]]");
        assert!(!alone || found.len() == 1, "one mistake is one problem: {found:#?}");
    }
}
