//! Ranges of options: what is outside is named, with the range.

use crate::error::{Error, ErrorKind, Result};

/// Accepted values of one option.
pub(super) struct Range {
    pub(super) option: &'static str,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) whole: bool,
    /// Whether 0, which switches the option off, is accepted below `min` too.
    pub(super) zero: bool,
}

pub(super) const fn number(option: &'static str, min: f64, max: f64) -> Range {
    Range { option, min, max, whole: false, zero: false }
}

pub(super) const fn whole(option: &'static str, min: f64, max: f64) -> Range {
    Range { option, min, max, whole: true, zero: false }
}

impl Range {
    pub(super) fn check(&self, value: f64) -> Result<f64> {
        let inside = (self.min..=self.max).contains(&value) || (self.zero && value == 0.0);
        if inside && (!self.whole || value.fract() == 0.0) {
            return Ok(value);
        }
        let kind = match (self.whole, self.zero) {
            (true, _) => "a whole number",
            (false, true) => "0 or a number",
            (false, false) => "a number",
        };
        let problem = format!("{value} is not {kind} from {} to {}", self.min, self.max);
        Err(Error::new(ErrorKind::InvalidArgument, problem).at(self.option))
    }

    pub(super) fn real(&self, value: Option<f64>, otherwise: f32) -> Result<f32> {
        value.map_or(Ok(otherwise), |value| Ok(self.check(value)? as f32))
    }

    pub(super) fn count(&self, value: Option<f64>, otherwise: u32) -> Result<u32> {
        value.map_or(Ok(otherwise), |value| Ok(self.check(value)? as u32))
    }
}
