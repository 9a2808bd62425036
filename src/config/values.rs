//! Readers of single values: each takes a TOML value and says what it wants instead when it is another.

use super::durations;
use super::reader::wrong_type;
use crate::names::NameError;
use ipnet::IpNet;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeValue;
use uuid::Uuid;

/// The longest text value, in bytes (the longest that any service takes is a URL of this order).
const MAX_TEXT_BYTES: usize = 1024;

/// A string without control characters.
pub(super) fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    let text = value.as_str().ok_or_else(|| wrong_type("a string", value))?;
    match text {
        "" => Err("is empty".to_owned()),
        long if long.len() > MAX_TEXT_BYTES => Err(format!("is longer than {MAX_TEXT_BYTES} bytes")),
        forged if forged.contains(char::is_control) => Err("has a control character".to_owned()),
        text => Ok(text),
    }
}

/// A name of the vocabulary.
pub(super) fn name<T>(parse: impl Fn(&str) -> Result<T, NameError>) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| parse(text(value)?).map_err(|error| error.to_string())
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| wrong_type("true or false", value))
}

/// A whole number within bounds.
pub(super) fn integer(bounds: RangeInclusive<u32>) -> impl Fn(&DeValue<'_>) -> Result<u32, String> {
    move |value| {
        let number = value.as_integer().ok_or_else(|| wrong_type("an integer", value))?;
        let number = u32::from_str_radix(number.as_str(), number.radix()).ok();
        number
            .filter(|number| bounds.contains(number))
            .ok_or_else(|| format!("is out of bounds: {} to {}", bounds.start(), bounds.end()))
    }
}

/// A duration within bounds.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| durations::parse(text(value)?, &bounds)
}

/// One word of a list.
pub(super) fn one_of<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let given = text(value)?;
        let known = words.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning);
        known.ok_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("must be {}", words.join(" or "))
        })
    }
}

/// An id of Entra's, as tokens write it: lower case, hyphenated.
pub(super) fn guid(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    match Uuid::try_parse(text) {
        Ok(id) if text.len() == 36 => Ok(id.hyphenated().to_string()),
        _ => Err("is not a hyphenated GUID".to_owned()),
    }
}

/// `IP:PORT`; no host name, so that what is listened on does not depend on a resolver.
pub(super) fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    text(value)?.parse().map_err(|_| "is not IP:PORT, such as \"0.0.0.0:5432\" or \"[::]:5432\"".to_owned())
}

/// A network in CIDR form, written as its first address and not the whole of IPv4 or IPv6, which is what `whole` says.
pub(super) fn network(whole: &'static str) -> impl Fn(&DeValue<'_>) -> Result<IpNet, String> {
    move |value| {
        let network = some_network(value)?;
        if network.prefix_len() == 0 { Err(whole.to_owned()) } else { Ok(network) }
    }
}

fn some_network(value: &DeValue<'_>) -> Result<IpNet, String> {
    // `IpNet`'s own reader takes 010 for 10, which other programs take for 8.
    let parts = text(value)?.split_once('/').filter(|(_, length)| length.bytes().all(|byte| byte.is_ascii_digit()));
    let network = parts.and_then(|(address, length)| IpNet::new(address.parse().ok()?, length.parse().ok()?).ok());
    let network =
        network.ok_or_else(|| "is not a network in CIDR form, such as \"10.0.0.0/8\" or \"10.0.0.7/32\"".to_owned())?;
    if network.trunc() != network {
        return Err(format!("has bits behind its prefix; the network is {}", network.trunc()));
    }
    // Addresses of such clients are compared as what they mean.
    if matches!(network, IpNet::V6(network) if network.network().to_ipv4_mapped().is_some()) {
        return Err("is IPv4 written as IPv6; write it as IPv4".to_owned());
    }
    Ok(network)
}

/// A DNS name of at least two labels, lower case.
pub(super) fn domain(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    let label = |label: &str| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.contains('.') && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("is not a domain, such as \"googleapis.com\"".to_owned())
    }
}

/// The address of a service without a trailing slash: `https://HOST[:PORT][/PATH]`, or `http://` towards this
/// machine only, where simulators are. The result is what was checked: the parsed URL, written out again.
pub(super) fn service_url(value: &DeValue<'_>) -> Result<String, String> {
    service_address(text(value)?)
}

/// The same of a text from elsewhere.
pub(super) fn service_address(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry a user name or password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end before any ? or #".to_owned());
    }
    match url.scheme() {
        "https" if url.has_host() => {}
        "http" if url.host_str().is_some_and(is_loopback) => {}
        "http" => {
            return Err("must be https://, or tokens would travel in the clear (http:// is for loopback)".to_owned());
        }
        _ => return Err("must be an https:// URL".to_owned()),
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn is_loopback(host: &str) -> bool {
    let bare: Cow<'_, str> = host.trim_start_matches('[').trim_end_matches(']').into();
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> DeValue<'_> {
        DeValue::String(Cow::Borrowed(text))
    }

    #[test]
    fn tokens_go_only_to_https_or_to_this_machine() {
        for (given, expected) in [
            ("https://sts.googleapis.com", "https://sts.googleapis.com"),
            ("https://sts.googleapis.com/", "https://sts.googleapis.com"),
            ("HTTPS://STS.googleapis.com:443", "https://sts.googleapis.com"),
            ("https://proxy.contoso.example:8443/sts", "https://proxy.contoso.example:8443/sts"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.9.9.9", "http://127.9.9.9"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost:1", "http://localhost:1"),
            // The WHATWG parser's short forms are checked and kept as what they mean.
            ("http://127.1", "http://127.0.0.1"),
        ] {
            assert_eq!(service_url(&string(given)).as_deref(), Ok(expected), "{given}");
        }
        for bad in [
            "http://sts.googleapis.com",
            "http://localhost.contoso.example",
            "http://127.0.0.1.contoso.example",
            "http://0.0.0.0",
            "http://[::ffff:10.0.0.1]",
            "http://localhost@contoso.example",
            "https://user@contoso.example",
            "https://user:secret@contoso.example",
            "https://contoso.example?x=1",
            "https://contoso.example#x",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "sts.googleapis.com",
            "https://",
            "",
        ] {
            assert!(service_url(&string(bad)).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn guids_are_written_as_tokens_write_them() {
        let lower = "0c7a5f0e-4b5d-4f5e-9a3b-6f1f2d3e4a5b";
        assert_eq!(guid(&string(&lower.to_uppercase())).as_deref(), Ok(lower));
        for bad in ["0c7a5f0e4b5d4f5e9a3b6f1f2d3e4a5b", "{0c7a5f0e-4b5d-4f5e-9a3b-6f1f2d3e4a5b}", "analysts"] {
            assert!(guid(&string(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_are_exact_and_never_everybody() {
        for good in ["10.0.0.0/8", "192.0.2.7/32", "35.191.0.0/16", "2001:db8::/32", "::1/128", "0.0.0.0/1"] {
            assert_eq!(network("is everybody")(&string(good)).map(|network| network.to_string()).as_deref(), Ok(good));
        }
        for (bad, reason) in [
            ("10.0.0.1/8", "the network is 10.0.0.0/8"),
            ("2001:db8::1/32", "the network is 2001:db8::/32"),
            ("0.0.0.0/0", "every address"),
            ("::/0", "every address"),
            ("::ffff:10.0.0.0/104", "write it as IPv4"),
            ("10.0.0.1", "CIDR form"),
            ("10.0.0.0/33", "CIDR form"),
            ("10.0.0.0/-1", "CIDR form"),
            ("10.0.0.0/+8", "CIDR form"),
            ("10.0.0.0/", "CIDR form"),
            ("10.0.0.0/8/8", "CIDR form"),
            ("10.0.0/8", "CIDR form"),
            ("010.0.0.0/8", "CIDR form"),
            ("balancer.contoso.example/8", "CIDR form"),
            ("*", "CIDR form"),
            ("", "is empty"),
        ] {
            let refused = network("is every address")(&string(bad)).unwrap_err();
            assert!(refused.contains(reason), "{bad}: {refused}");
        }
    }

    #[test]
    fn domains_are_plain() {
        for good in ["googleapis.com", "apis-s3ns.fr", "a.b.c"] {
            assert_eq!(domain(&string(good)).as_deref(), Ok(good));
        }
        for bad in ["com", "https://googleapis.com", "a..b", ".a.b", "a.b.", "A.b", "a.-b", "a b.c", "a.b/c", "a.b:1"] {
            assert!(domain(&string(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_numeric() {
        for good in ["0.0.0.0:5432", "[::1]:5432"] {
            assert!(socket_address(&string(good)).is_ok(), "{good}");
        }
        for bad in ["localhost:5432", "0.0.0.0", ":5432", "0.0.0.0:65536", "5432"] {
            assert!(socket_address(&string(bad)).is_err(), "{bad}");
        }
    }
}
