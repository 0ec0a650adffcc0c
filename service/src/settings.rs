//! Values of flags and environment variables, parsed once before anything is bound.

use std::str::FromStr;
use std::time::Duration;

/// A value that must not appear in logs: its `Debug` and `Display` hide it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself; for comparing and for sending only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Parses a duration given in seconds, fractions allowed; for `clap`'s `value_parser`.
///
/// # Errors
/// Says what is wrong when the text is not a number of seconds above 0 and at most a year.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match value > 0.0 && value <= 31_536_000.0 {
        true => Ok(Duration::from_secs_f64(value)),
        false => Err("must be above 0 and at most 31536000 (a year)".into()),
    }
}

/// As [`seconds`], and 0 as well.
///
/// # Errors
/// Says what is wrong when the text is not a number of seconds from 0 to a year.
pub fn seconds_or_zero(text: &str) -> Result<Duration, String> {
    match text.trim() {
        "0" | "0.0" => Ok(Duration::ZERO),
        other => seconds(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {secret}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn seconds_take_fractions_and_refuse_nonsense() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["", "x", "0", "-1", "NaN", "inf", "1e300"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        assert_eq!(seconds_or_zero("0"), Ok(Duration::ZERO));
    }
}
