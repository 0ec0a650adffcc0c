//! JSON objects and nothing else: derived types would also be read from arrays, field by field in their order.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A value that is read from a JSON object only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// For fields that may be left out.
pub(crate) fn optional<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|object| object.0))
}

/// For fields that must be there.
pub(crate) fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Object::<T>::deserialize(deserializer)?.0)
}

#[cfg(test)]
mod tests {
    use crate::task::NewTask;

    use super::*;

    #[test]
    fn arrays_are_no_objects() {
        assert!(serde_json::from_str::<Object<NewTask>>(r#"{"http":{"url":"x"},"retry":null}"#).is_ok());
        for text in [r#"["x"]"#, "[]", r#"{"http":["GET","x"]}"#, r#"{"retry":[1,2,3]}"#, "null", r#""x""#] {
            assert!(serde_json::from_str::<Object<NewTask>>(text).is_err(), "{text}");
        }
    }
}
