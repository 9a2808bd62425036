//! Opening sealed texts for who may have the keys.

use super::fields::{Fields, text};
use super::{Error, Place};
use crate::audit::sealing::{Sealed, SealingConfig, Vault};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// What sealed records are opened with.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Keys {
    /// Open sealed texts with the keys of the config's audit.sealing
    #[arg(long)]
    unseal: bool,
    /// Open them with the keys in this folder, or a copy of it
    #[arg(long, value_name = "FOLDER", requires = "sealing_key")]
    sealing_folder: Option<PathBuf>,
    /// What wraps the keys in --sealing-folder
    #[arg(long, value_name = "FILE", requires = "sealing_folder")]
    sealing_key: Option<PathBuf>,
}

/// What became of a record's sealed text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// It has none, or is open now.
    Yes,
    /// Nobody asked for it to be opened.
    Unasked,
    /// Its key is not there.
    Erased,
    /// It cannot be opened: it or its key is damaged, or the wrapping key is another one.
    Damaged,
}

/// Opens texts, if that was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Opener(Option<Arc<Vault>>);

impl Keys {
    pub(super) fn opener(&self, place: &Place) -> Result<Opener, Error> {
        let sealing = match (&self.sealing_folder, &self.sealing_key) {
            (Some(folder), Some(key)) => SealingConfig { folder: folder.clone(), key: key.clone() },
            _ if !self.unseal => return Ok(Opener::default()),
            _ => place.sealing()?,
        };
        Ok(Opener(Some(Arc::new(sealing.vault()?))))
    }
}

impl Opener {
    /// Puts parameters in their place, and the text in the place of its shape. What becomes of the first that does not
    /// open tells for both: they have one key.
    pub(super) fn open(&self, fields: &mut Fields) -> Opened {
        let parameters = self.open_parameters(fields);
        let text = self.open_text(fields);
        if parameters == Opened::Yes { text } else { parameters }
    }

    fn open_parameters(&self, fields: &mut Fields) -> Opened {
        let Some(sealed) = fields.get("parameters_sealed") else { return Opened::Yes };
        let Some(vault) = &self.0 else { return Opened::Unasked };
        let Ok(sealed) = serde_json::from_value::<Sealed>(sealed.clone()) else { return Opened::Damaged };
        let (outcome, name, value) = match sealed.open(vault, text(fields, "id"), "parameters") {
            Ok(Some(plain)) => match serde_json::from_slice(&plain) {
                Ok(list) => (Opened::Yes, "parameters", list),
                Err(_) => return Opened::Damaged,
            },
            Ok(None) => (Opened::Erased, "parameters_erased", true.into()),
            Err(_) => return Opened::Damaged,
        };
        fields.remove("parameters_sealed");
        fields.insert(name.to_owned(), value);
        outcome
    }

    fn open_text(&self, fields: &mut Fields) -> Opened {
        let Some(sealed) = fields.get("text_sealed") else { return Opened::Yes };
        let Some(vault) = &self.0 else { return Opened::Unasked };
        let Ok(sealed) = serde_json::from_value::<Sealed>(sealed.clone()) else { return Opened::Damaged };
        // A begin record has the text's start, and says no offset.
        let offset = fields.get("offset").and_then(Value::as_u64).unwrap_or_default();
        let opened = sealed.open(vault, text(fields, "id"), &format!("text@{offset}"));
        let (outcome, plain) = match opened {
            Ok(Some(plain)) => (Opened::Yes, plain),
            Ok(None) => (Opened::Erased, Vec::new()),
            Err(_) => return Opened::Damaged,
        };
        fields.remove("text_sealed");
        if outcome == Opened::Erased {
            fields.insert("text_erased".to_owned(), true.into());
            return outcome;
        }
        fields.remove("text");
        match String::from_utf8(plain) {
            Ok(plain) => fields.insert("text".to_owned(), plain.into()),
            Err(other) => fields.insert("text_base64".to_owned(), STANDARD.encode(other.as_bytes()).into()),
        };
        outcome
    }
}
