//! Whole numbers as they are read: `3`, and `3.0`, which JSON Schema takes for the same.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::limits;

/// For fields that are whole numbers.
pub(crate) fn number<'de, D: Deserializer<'de>, T: TryFrom<i128>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Whole(PhantomData))
}

/// As [`number`], for fields that may be left out, or `null`.
pub(crate) fn optional<'de, D: Deserializer<'de>, T: TryFrom<i128>>(deserializer: D) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_option(Optional(PhantomData))
}

/// Of numbers with more digits the JSON parser may miss the last bit (to read every number exactly would take it twice as long), and that
/// is a fraction: `2251799813685247.0` is read as 2251799813685247.25. 2⁴⁸.
const EXACT_BELOW: f64 = 281_474_976_710_656.0;

struct Whole<T>(PhantomData<T>);

impl<T: TryFrom<i128>> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = T::try_from(-1).is_ok();
        f.write_str(if signed { "a whole number" } else { "a whole number, 0 or more" })
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::try_from(number.into()).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::try_from(number.into()).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        let whole = number.round();
        let slack = if number.abs() < EXACT_BELOW { 0.0 } else { number.abs() * f64::EPSILON };
        // Beyond that, nobody knows which whole number was meant.
        let is_whole = (number - whole).abs() <= slack && whole.abs() <= limits::INTEGER_MAX as f64;
        let converted = is_whole.then(|| T::try_from(whole as i128).ok()).flatten();
        converted.ok_or_else(|| E::invalid_type(Unexpected::Float(number), &self))
    }
}

struct Optional<T>(PhantomData<T>);

impl<'de, T: TryFrom<i128>> Visitor<'de> for Optional<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Whole::<T>(PhantomData).expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        number(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::limits;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Numbers {
        #[serde(deserialize_with = "super::number")]
        signed: i64,
        #[serde(default, deserialize_with = "super::optional")]
        small: Option<u16>,
    }

    fn read(text: &str) -> Result<(i64, Option<u16>), String> {
        serde_json::from_str::<Numbers>(text).map(|n| (n.signed, n.small)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        assert_eq!(read(r#"{"signed": 3}"#), Ok((3, None)));
        assert_eq!(read(r#"{"signed": -3.0, "small": 7.0}"#), Ok((-3, Some(7))));
        assert_eq!(read(r#"{"signed": 1e3, "small": null}"#), Ok((1000, None)));
        assert_eq!(read(r#"{"signed": 9223372036854775807}"#), Ok((i64::MAX, None)));
        for large in [2_251_799_813_685_247, 1_125_899_906_842_623, 4_503_599_627_370_495, limits::INTEGER_MAX] {
            assert_eq!(read(&format!(r#"{{"signed": {large}.0}}"#)), Ok((large, None)));
        }
    }

    #[test]
    fn nothing_else_is_one() {
        for wrong in [
            r#"{"signed": 1.5}"#,
            r#"{"signed": 1.0000000000000002}"#,
            r#"{"signed": 140737488355327.5}"#,
            r#"{"signed": 1e300}"#,
            r#"{"signed": "3"}"#,
            r#"{"signed": null}"#,
            r#"{"signed": 9223372036854775808}"#,
            r#"{"signed": 1, "small": -1}"#,
            r#"{"signed": 1, "small": 65536.0}"#,
        ] {
            assert!(read(wrong).unwrap_err().contains("expected a whole number"), "{wrong}");
        }
    }
}
