//! The names of the fields that a type is read from.

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

/// The names of the fields of a struct, as JSON has them; none of anything else.
pub fn names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // Fails, once it has said what it would read.
    let _ = T::deserialize(Asked { names: &mut names });
    names
}

struct Asked<'a> {
    names: &'a mut &'static [&'static str],
}

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("there is nothing to read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.names = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{HttpWork, RetryPolicy};

    #[test]
    fn a_type_is_asked_for_its_fields() {
        assert_eq!(
            names::<HttpWork>(),
            [
                "method",
                "url",
                "headers",
                "body",
                "body_base64",
                "response",
                "sign",
                "completion",
                "heartbeat_timeout_seconds"
            ]
        );
        assert_eq!(names::<RetryPolicy>().len(), 5);
        assert!(names::<String>().is_empty());
    }
}
