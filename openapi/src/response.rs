//! What the status of an HTTP target's answer means to its task.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bounds;
use crate::limits::RESPONSE_STATUSES_MAX;

/// Statuses that a final answer can have (RFC 9110, 15).
pub const STATUSES: RangeInclusive<u16> = 200..=599;

/// One status, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Statuses {
    /// One: `404`.
    #[schema(value_type = bounds::Status)]
    One(u16),
    /// From the first to the last: `"200-299"`.
    #[schema(value_type = bounds::StatusRange)]
    Range(String),
}

impl Statuses {
    /// The statuses it stands for; `None` when it stands for none.
    pub fn range(&self) -> Option<RangeInclusive<u16>> {
        let (first, last) = match self {
            Statuses::One(status) => (*status, *status),
            Statuses::Range(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                (status(first)?, status(last)?)
            }
        };
        (STATUSES.contains(&first) && STATUSES.contains(&last) && first <= last).then_some(first..=last)
    }
}

/// Three digits: neither signs nor blanks, which integers would be read with.
fn status(text: &str) -> Option<u16> {
    let three_digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    three_digits.then(|| text.parse().ok()).flatten()
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrRange;

        impl Visitor<'_> for OneOrRange {
            type Value = Statuses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 404, or a range such as \"200-299\"")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Statuses, E> {
                Ok(Statuses::One(u16::try_from(number).unwrap_or(u16::MAX)))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Statuses, E> {
                Ok(Statuses::One(u16::try_from(number).unwrap_or(u16::MAX)))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Statuses, E> {
                // JSON has one kind of numbers: 404.0 is 404.
                Ok(Statuses::One(if number.fract() == 0.0 { number as u16 } else { 0 }))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
                Ok(Statuses::Range(text.to_owned()))
            }
        }

        deserializer.deserialize_any(OneOrRange)
    }
}

/// What the status of the answer means. No status may stand in two of the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"success": ["200-299", 404], "final": ["400-499"], "retry": [429]}))]
pub struct ResponseRules {
    /// Success, in place of 2xx.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 20)]
    pub success: Vec<Statuses>,
    /// The attempt failed, and the task is tried again while it has attempts: so is whatever stands in no list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 20)]
    pub retry: Vec<Statuses>,
    /// The task FAILED, whatever attempts it has left; 410 when left out.
    #[serde(rename = "final", skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 20)]
    pub terminal: Vec<Statuses>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Success,
    /// Failed; tried again while attempts are left.
    Retry,
    /// Failed for good.
    Final,
}

impl ResponseRules {
    /// What this status means.
    pub fn meaning(&self, status: u16) -> Meaning {
        let is_in = |list: &[Statuses]| list.iter().filter_map(Statuses::range).any(|range| range.contains(&status));
        if is_in(&self.success) {
            Meaning::Success
        } else if is_in(&self.terminal) {
            Meaning::Final
        } else if is_in(&self.retry) {
            Meaning::Retry
        } else if self.success.is_empty() && (200..=299).contains(&status) {
            Meaning::Success
        } else if self.terminal.is_empty() && status == 410 {
            Meaning::Final
        } else {
            Meaning::Retry
        }
    }

    /// What is wrong with the lists: a pointer below `response` each, and what would be right.
    pub fn errors(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut known: Vec<(RangeInclusive<u16>, String)> = Vec::new();
        for (name, list) in [("success", &self.success), ("retry", &self.retry), ("final", &self.terminal)] {
            if list.len() > RESPONSE_STATUSES_MAX {
                errors.push((format!("/{name}"), format!("must have at most {RESPONSE_STATUSES_MAX} entries")));
                continue;
            }
            for (i, statuses) in list.iter().enumerate() {
                let pointer = format!("/{name}/{i}");
                let Some(range) = statuses.range() else {
                    errors.push((pointer, "must be a status from 200 to 599, or a range such as \"200-299\"".into()));
                    continue;
                };
                let meets = |(other, _): &&(RangeInclusive<u16>, String)| {
                    range.start() <= other.end() && other.start() <= range.end()
                };
                match known.iter().find(meets) {
                    Some((_, other)) => errors.push((pointer, format!("has a status that {other} has as well"))),
                    None => known.push((range, pointer)),
                }
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(text: &str) -> ResponseRules {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn without_rules_2xx_is_success_and_410_is_final() {
        let none = ResponseRules::default();
        for status in STATUSES {
            let expected = match status {
                200..=299 => Meaning::Success,
                410 => Meaning::Final,
                _ => Meaning::Retry,
            };
            assert_eq!(none.meaning(status), expected, "{status}");
        }
    }

    #[test]
    fn a_list_takes_the_place_of_what_is_usual() {
        let given = rules(r#"{"success": [404, "200-204"], "retry": [410, "500-599"], "final": ["400-403"]}"#);
        for (status, expected) in [
            (404, Meaning::Success),
            (204, Meaning::Success),
            (205, Meaning::Retry),
            (410, Meaning::Retry),
            (503, Meaning::Retry),
            (401, Meaning::Final),
            (429, Meaning::Retry),
        ] {
            assert_eq!(given.meaning(status), expected, "{status}");
        }
        assert_eq!(rules(r#"{"final": [500]}"#).meaning(410), Meaning::Retry);
    }

    #[test]
    fn entries_that_stand_for_nothing_and_overlaps_are_named() {
        for (text, pointer) in [
            (r#"{"success": [99]}"#, "/success/0"),
            (r#"{"success": [199]}"#, "/success/0"),
            (r#"{"success": [600]}"#, "/success/0"),
            (r#"{"success": [-1]}"#, "/success/0"),
            (r#"{"success": [200.5]}"#, "/success/0"),
            (r#"{"retry": ["299-200"]}"#, "/retry/0"),
            (r#"{"retry": ["+20-299"]}"#, "/retry/0"),
            (r#"{"retry": ["2xx"]}"#, "/retry/0"),
            (r#"{"final": ["400-499", 404]}"#, "/final/1"),
            (r#"{"success": ["200-299"], "final": ["299-300"]}"#, "/final/0"),
        ] {
            let errors = rules(text).errors();
            assert_eq!(errors.iter().map(|(pointer, _)| pointer.as_str()).collect::<Vec<_>>(), [pointer], "{text}");
        }
        assert_eq!(rules(r#"{"success": [200.0, "201", "202-299"], "final": [400]}"#).errors(), []);
        assert!(serde_json::from_str::<ResponseRules>(r#"{"success": [null]}"#).is_err());
    }

    fn statuses() -> impl Strategy<Value = Statuses> {
        prop_oneof![
            (190..610u16).prop_map(Statuses::One),
            (190..610u16, 0..80u16).prop_map(|(first, more)| Statuses::Range(format!("{first}-{}", first + more))),
        ]
    }

    proptest! {
        #[test]
        fn what_rules_without_errors_list_is_meant_as_listed_and_reads_back(
            success in prop::collection::vec(statuses(), 0..4), retry in prop::collection::vec(statuses(), 0..4),
            terminal in prop::collection::vec(statuses(), 0..4), status in STATUSES,
        ) {
            let rules = ResponseRules { success, retry, terminal };
            let read: ResponseRules = serde_json::from_str(&serde_json::to_string(&rules).unwrap()).unwrap();
            prop_assert_eq!(&read, &rules);
            prop_assume!(rules.errors().is_empty());
            let lists = [(&rules.success, Meaning::Success), (&rules.retry, Meaning::Retry), (&rules.terminal, Meaning::Final)];
            let listed: Vec<Meaning> = lists
                .into_iter()
                .filter(|(list, _)| list.iter().filter_map(Statuses::range).any(|range| range.contains(&status)))
                .map(|(_, meaning)| meaning)
                .collect();
            prop_assert!(listed.len() <= 1);
            let usual = match status {
                200..=299 if rules.success.is_empty() => Meaning::Success,
                410 if rules.terminal.is_empty() => Meaning::Final,
                _ => Meaning::Retry,
            };
            prop_assert_eq!(rules.meaning(status), listed.first().copied().unwrap_or(usual));
        }
    }
}
