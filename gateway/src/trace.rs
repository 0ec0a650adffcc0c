//! `traceparent` and `tracestate` (W3C Trace Context, level 1): the trace that a request is part of, as its tasks keep it.

use http::HeaderMap;
use taskmaster_openapi::limits::{TRACEPARENT_CHARS, TRACESTATE_CHARS_MAX};
use taskmaster_openapi::worker::headers::{TRACEPARENT, TRACESTATE};

/// List members that a `tracestate` may have (3.3.1.1).
const MEMBERS_MAX: usize = 32;
/// The flag that is known: somebody records the trace (3.2.2.5.1).
const SAMPLED: u8 = 1;

/// The request's trace: `traceparent` in version 00, and after a blank `tracestate`, where there is one. What is not valid is as if it were
/// not there (3.2, 3.3).
pub(crate) fn of(headers: &HeaderMap) -> Option<String> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let (Some(traceparent), None) = (given.next(), given.next()) else { return None };
    let traceparent = read(traceparent.to_str().ok()?.trim())?;
    Some(match state(headers) {
        Some(state) => format!("{traceparent} {state}"),
        None => traceparent,
    })
}

/// A `traceparent` of any version, in version 00. Of later ones, the first fields are those of 00, and others may follow (3.2.4).
fn read(text: &str) -> Option<String> {
    let (known, rest) = text.split_at_checked(TRACEPARENT_CHARS)?;
    let fields: Vec<&str> = known.split('-').collect();
    let [version, trace_id, parent_id, flags] = fields[..] else { return None };
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |text: &str, length| is_hex(text, length) && text.bytes().any(|byte| byte != b'0');
    let ends = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    let right =
        is_hex(version, 2) && version != "ff" && is_id(trace_id, 32) && is_id(parent_id, 16) && is_hex(flags, 2);
    let flags = u8::from_str_radix(flags, 16).ok()? & SAMPLED;
    (right && ends).then(|| format!("00-{trace_id}-{parent_id}-{flags:02x}"))
}

/// The `tracestate`, whose headers are one list (3.3.1).
fn state(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(TRACESTATE).iter().map(|value| value.to_str());
    let values: Vec<&str> = values.collect::<Result<_, _>>().ok()?;
    let members: Vec<&str> =
        values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty()).collect();
    let is_member = |member: &&str| {
        let (key, value) = member.split_once('=').unwrap_or_default();
        let is_key = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
        let is_value = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
        (1..=256).contains(&key.len()) && key.bytes().all(is_key) && !value.is_empty() && value.bytes().all(is_value)
    };
    let state = members.join(",");
    let right = (1..=MEMBERS_MAX).contains(&members.len()) && members.iter().all(is_member);
    (right && state.len() <= TRACESTATE_CHARS_MAX).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn trace(given: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        of(&headers)
    }

    #[test]
    fn a_valid_trace_is_kept_and_of_later_versions_what_is_known() {
        assert_eq!(trace(&[("traceparent", GIVEN)]).as_deref(), Some(GIVEN));
        for later in [GIVEN.replacen("00", "cc", 1), format!("{}-more", GIVEN.replacen("00", "cc", 1))] {
            assert_eq!(trace(&[("traceparent", &later)]).as_deref(), Some(GIVEN), "{later}");
        }
        let unknown_flags = format!("{}ff", &GIVEN[..53]);
        assert_eq!(trace(&[("traceparent", &unknown_flags)]).as_deref(), Some(GIVEN));
    }

    #[test]
    fn what_is_not_valid_is_as_if_it_were_not_there() {
        for wrong in [
            "",
            "00",
            &GIVEN[..54],
            &format!("{GIVEN}-more"),
            &GIVEN.to_uppercase(),
            &GIVEN.replacen("00", "ff", 1),
            &GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GIVEN.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GIVEN.replace('-', "_"),
            &GIVEN.replacen("4b", "+b", 1),
        ] {
            assert_eq!(trace(&[("traceparent", wrong)]), None, "{wrong}");
        }
        assert_eq!(trace(&[("traceparent", GIVEN), ("traceparent", GIVEN)]), None, "two parents");
        assert_eq!(trace(&[("tracestate", "a=1")]), None, "a state of nothing");
    }

    #[test]
    fn a_state_goes_along_whole_or_not_at_all() {
        let with = |states: &[&str]| {
            let states = states.iter().map(|state| ("tracestate", *state));
            let given: Vec<(&'static str, &str)> = std::iter::once(("traceparent", GIVEN)).chain(states).collect();
            trace(&given).unwrap()[TRACEPARENT_CHARS..].to_owned()
        };
        assert_eq!(with(&["congo=t61rcWkgMzE, rojo=1", "a@b=2,,"]), " congo=t61rcWkgMzE,rojo=1,a@b=2");
        let many = vec!["a=1"; 33].join(",");
        let long = format!("a={}", "x".repeat(511));
        for wrong in ["", "x", "A=1", "a=", "a=b=c", &many, &long] {
            assert_eq!(with(&[wrong]), "", "{wrong}");
        }
    }
}
