//! `[rule.startup]`: what clients may set as they start.

use super::reader::{Field, Section, wrong_type};
use super::values;
use crate::policy::{Power, Powers};
use toml::de::DeValue;

/// The longest value of a setting, in bytes; a start-up packet has 10,000.
const MAX_VALUE_BYTES: usize = 1024;

const WORDS: &[(&str, bool)] = &[("allow", true), ("refuse", false)];

/// The powers; the default where there is no section.
pub(super) fn powers(section: Option<Section<'_>>) -> Powers {
    let mut powers = Powers::default();
    let mut seen: Vec<String> = Vec::new();
    for (name, field) in section.map(|section| section.all_fields()).unwrap_or_default() {
        powers = match name {
            "options" if field.read(values::one_of(WORDS)) == Some(false) => powers.without_options(),
            "others" if field.read(values::one_of(WORDS)) == Some(false) => powers.without_others(),
            "options" | "others" => powers,
            name => match Powers::setting(name) {
                Err(reason) => {
                    field.problem(reason);
                    powers
                }
                Ok(setting) if seen.contains(&setting) => {
                    field.problem(&format!("is {setting}, which has a word of its own already"));
                    powers
                }
                Ok(setting) => {
                    seen.push(setting.clone());
                    match power(&field) {
                        Some(power) => powers.with(&setting, power),
                        None => powers,
                    }
                }
            },
        };
    }
    powers
}

/// `"allow"`, `"refuse"`, a list of values, or `{ fixed = VALUE }`.
fn power(field: &Field<'_>) -> Option<Power> {
    match field.value {
        DeValue::String(_) => {
            let allowed = field.read(values::one_of(WORDS))?;
            Some(if allowed { Power::Allow } else { Power::Refuse })
        }
        DeValue::Array(_) => {
            let entries = field.some_entries()?;
            let values: Vec<String> = entries.iter().filter_map(|entry| entry.read(value)).collect();
            (!values.is_empty()).then_some(Power::OneOf(values))
        }
        DeValue::Table(_) => {
            let section = field.section()?;
            let fixed = section.required("fixed", value);
            section.finish();
            fixed.map(Power::Fixed)
        }
        other => {
            let forms = "\"allow\", \"refuse\", a list of values or { fixed = \"…\" }";
            field.problem(&wrong_type(forms, other));
            None
        }
    }
}

/// A setting's value, which may be empty.
pub(super) fn value(value: &DeValue<'_>) -> Result<String, String> {
    let text = value.as_str().ok_or_else(|| wrong_type("a string", value))?;
    if text.len() > MAX_VALUE_BYTES {
        return Err(format!("is longer than {MAX_VALUE_BYTES} bytes"));
    }
    if text.contains(char::is_control) {
        return Err("has a control character".to_owned());
    }
    Ok(text.to_owned())
}
