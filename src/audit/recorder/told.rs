//! What a record says of what a client sent: in the clear, or sealed where the rule says so.

use super::Recorder;
use crate::audit::event::{self, Event, EventId, Listed};
use crate::audit::parameters::{self, Recorded};
use crate::audit::sealing::{Sealed, shape};
use crate::audit::text::{Encoded, Form, encode_text, pieces, start};
use crate::audit::{Parameters, Unrecorded, Values};
use std::borrow::Cow;
use zeroize::Zeroizing;

/// Whether a text is recorded no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Yes,
    No,
}

/// A text as a record has it.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    pub text: Option<Cow<'a, str>>,
    pub text_base64: Option<String>,
    pub text_sealed: Option<Sealed>,
}

impl Recorder {
    /// Prepares what follows of an event's text, from `offset` on, at most 64 KiB of it; [`Recorder::commit`]
    /// writes it. `false` where the text goes on past what is recorded: it says so, and nothing more of it is to follow.
    pub fn text(&mut self, event: u64, offset: u64, part: &[u8]) -> bool {
        let room = u64::from(self.recording.max_text_bytes).saturating_sub(offset);
        let whole = part.len() as u64;
        let kept = start(part, whole, usize::try_from(room).unwrap_or(usize::MAX));
        let cut = kept.len() < part.len();
        if self.sealer.is_some() {
            self.part(event, offset, kept, Cut::No);
        } else {
            let mut at = offset;
            for piece in pieces(kept) {
                self.part(event, at, piece, Cut::No);
                at = at.saturating_add(piece.len() as u64);
            }
        }
        if cut {
            self.part(event, offset.saturating_add(kept.len() as u64), &[], Cut::Yes);
        }
        !cut
    }

    fn part(&mut self, event: u64, offset: u64, piece: &[u8], cut: Cut) {
        let id = self.id(event);
        let told = match cut {
            Cut::Yes => Ok(Told::default()),
            Cut::No if piece.is_empty() => return,
            Cut::No => self.tell_text(id, offset, piece),
        };
        match told {
            Ok(Told { text, text_base64, text_sealed }) => {
                let (cut, durability) = (cut == Cut::Yes, self.durability.told());
                self.prepare(&Event::Text(event::Text { id, offset, text, text_base64, text_sealed, cut, durability }));
            }
            Err(error) => self.unwritable = Some(error),
        }
    }

    /// What a record says of a text from this byte on: the one place that decides it. Sealed, only its start has a shape:
    /// a part can begin within a literal.
    pub(super) fn tell_text<'t>(&mut self, id: EventId, offset: u64, text: &'t [u8]) -> Result<Told<'t>, Unrecorded> {
        let Encoded { text: clear, base64: text_base64 } = encode_text(text, Form::Text);
        let Some(sealer) = &mut self.sealer else {
            return Ok(Told { text: clear, text_base64, text_sealed: None });
        };
        let text_sealed = Some(sealer.seal(&id.to_string(), &format!("text@{offset}"), text)?);
        let text = clear.filter(|_| offset == 0).and_then(|text| shape(&text)).map(Cow::Owned);
        Ok(Told { text, text_base64: None, text_sealed })
    }

    /// What a record says of a message's values: the one place that decides it. Without a key there is no HMAC, and
    /// nothing is said of a value.
    pub(super) fn list(&mut self, id: EventId, values: &Values<'_>) -> Result<Listed, Unrecorded> {
        let how = match (self.parameters, &self.recording.parameters_key) {
            (Parameters::Full, _) => Recorded::Full,
            (Parameters::Hmac, Some(key)) => Recorded::Hmac(key),
            (Parameters::Hmac, None) | (Parameters::Off, _) => return Ok(Listed::default()),
        };
        let Values::Read { values, left_out } = values else {
            return Ok(Listed { parameters_malformed: true, ..Listed::default() });
        };
        let (parameters, more) = parameters::record(values, how);
        let left_out = left_out.saturating_add(more);
        match &mut self.sealer {
            Some(sealer) if self.parameters == Parameters::Full && !parameters.is_empty() => {
                let plain = Zeroizing::new(serde_json::to_vec(&parameters).map_err(std::io::Error::from)?);
                let list = sealer.seal(&id.to_string(), "parameters", &plain)?;
                Ok(Listed { parameters_sealed: Some(list), parameters_left_out: left_out, ..Listed::default() })
            }
            _ => Ok(Listed { parameters, parameters_left_out: left_out, ..Listed::default() }),
        }
    }
}
