//! Bodies and parameters, read within bounds and refused with problem documents that name the field.

use axum::body::Body;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::response::IntoResponse;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use taskmaster_openapi::object::Object;
use taskmaster_openapi::{Code, MERGE_PATCH_JSON, Problem, limits};

/// A JSON body of at most `LIMIT_BYTES`, with `Content-Type: application/json`. Unknown fields are refused where the type says so.
///
/// Requiring the content type also keeps web pages of other origins out: they cannot send it without asking first.
#[derive(Debug, Clone)]
pub struct Json<T, const LIMIT_BYTES: usize = { limits::BODY_BYTES_MAX }>(pub T);

impl<S, T, const LIMIT_BYTES: usize> FromRequest<S> for Json<T, LIMIT_BYTES>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        require_json(&request)?;
        let bytes = read_body(request, LIMIT_BYTES).await?;
        parse_json(&bytes).map(Json)
    }
}

impl<T: serde::Serialize, const LIMIT_BYTES: usize> IntoResponse for Json<T, LIMIT_BYTES> {
    fn into_response(self) -> axum::response::Response {
        axum::Json(self.0).into_response()
    }
}

/// Refuses a request whose body is not announced as JSON; what `PATCH` takes may be announced as a merge patch too (RFC 7396).
///
/// # Errors
/// `unsupported_media_type`.
pub fn require_json(request: &Request) -> Result<(), Problem> {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    let taken: &[&str] = match *request.method() {
        Method::PATCH => &["application/json", MERGE_PATCH_JSON],
        _ => &["application/json"],
    };
    match taken.iter().any(|taken| essence.eq_ignore_ascii_case(taken)) {
        true => Ok(()),
        false => {
            let detail = format!("must be {}", taken.join(" or "));
            Err(Problem::field(Code::UnsupportedMediaType, "Content-Type", detail))
        }
    }
}

/// Refuses a request with a header that is longer than what its document allows.
///
/// # Errors
/// `invalid_header`.
pub fn bound_header(headers: &HeaderMap, name: &str, chars_max: usize) -> Result<(), Problem> {
    let fits = headers.get_all(name).iter().all(|value| value.len() <= chars_max);
    let wrong = || Problem::field(Code::InvalidHeader, name, format!("must have at most {chars_max} characters"));
    if fits { Ok(()) } else { Err(wrong()) }
}

/// Reads a whole body of at most so many bytes.
///
/// # Errors
/// `body_too_large`, or `invalid_json` when the body breaks off.
pub async fn read_body(request: Request, limit_bytes: usize) -> Result<Bytes, Problem> {
    let (parts, mut body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let too_large = announced.is_some_and(|length| length > limit_bytes as u64);
    if !too_large {
        match Limited::new(&mut body, limit_bytes).collect().await {
            Ok(body) => return Ok(body.to_bytes()),
            Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {}
            Err(_) => return Err(Problem::new(Code::InvalidJson, "The body broke off.")),
        }
    }
    // A client that asks before it sends needs nothing but the answer.
    if !parts.headers.contains_key(header::EXPECT) {
        discard(body).await;
    }
    let detail = format!("The body is larger than {limit_bytes} bytes, the limit of this path.");
    Err(Problem::new(Code::BodyTooLarge, detail))
}

/// What is read of a body that is too large, and thrown away.
const DISCARDED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Lets a client finish that sends everything before it looks at the answer: a connection closed on it would hide the answer.
async fn discard(mut body: Body) {
    let mut left = DISCARDED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > left {
            return;
        }
        left -= length;
    }
}

/// Parses a JSON object, and says by a JSON pointer where it does not fit.
///
/// # Errors
/// `invalid_json` when it is not JSON, `invalid_body` when it has another shape.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // To know all the time where one is costs as much as the parsing: only what does not fit is gone through once more for that.
    serde_json::from_slice(bytes).map(|Object(parsed)| parsed).map_err(|_| misfit::<T>(bytes))
}

/// Why this is no JSON object of the type.
fn misfit<T: DeserializeOwned>(bytes: &[u8]) -> Problem {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Err(error) = serde_path_to_error::deserialize::<_, Object<T>>(&mut json) else {
        return Problem::field(Code::InvalidJson, "", "there is more after the end of the JSON value");
    };
    let pointer = pointer_of(error.path());
    let inner = error.into_inner();
    match inner.classify() {
        serde_json::error::Category::Data => Problem::field(Code::InvalidBody, pointer, plain(&inner)),
        _ => Problem::field(Code::InvalidJson, "", format!("not JSON: {}", plain(&inner))),
    }
}

fn plain(error: &serde_json::Error) -> String {
    in_plain_words(&error.to_string()).chars().take(limits::ERROR_MESSAGE_CHARS_MAX).collect()
}

/// What the parsers of times, numbers and ids say, for people who do not know these parsers. What follows stays: the place.
const WORDS_OF_VALUES: [(&str, &str); 11] = [
    ("input contains invalid characters", TIME),
    ("input is out of range", TIME),
    ("input is not enough for unique date and time", TIME),
    ("no possible date and time matching input", TIME),
    ("premature end of input", TIME),
    ("trailing input", TIME),
    ("invalid digit found in string", "must be a whole number"),
    ("cannot parse integer from empty string", "must be a whole number"),
    ("number too large to fit in target type", "is too large a number"),
    ("number too small to fit in target type", "is too small a number"),
    ("UUID parsing failed", "must be an id: a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057"),
];
const TIME: &str = "must be a time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z (in a query, + is written %2B)";

/// JSON's words for what Rust calls otherwise.
const WORDS_OF_TYPES: [(&str, &str); 11] = [
    ("expected i64", "expected a whole number"),
    ("expected u64", "expected a whole number, 0 or more"),
    ("expected u32", "expected a whole number, 0 or more"),
    ("expected u16", "expected a whole number, 0 or more"),
    ("expected f64", "expected a number"),
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected an object"),
    ("invalid type: sequence", "invalid type: list"),
    ("invalid type: map", "invalid type: object"),
    (": integer `", ": number `"),
    (": floating point `", ": number `"),
];

fn in_plain_words(message: &str) -> String {
    for (theirs, ours) in WORDS_OF_VALUES {
        if let Some(rest) = message.strip_prefix(theirs) {
            // Of a UUID the rest says which character is wrong; of the others, where they stand in the body.
            let place = rest.find(" at line ").map_or("", |start| &rest[start..]);
            return format!("{ours}{place}");
        }
    }
    WORDS_OF_TYPES.iter().fold(message.to_owned(), |text, (theirs, ours)| text.replacen(theirs, ours, 1))
}

/// A path of `serde_path_to_error` as a JSON pointer (RFC 6901).
fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path.iter() {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.extend(part.chars().take(100));
    }
    pointer
}

/// Query parameters. Unknown ones are refused where the type says so.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(query) => Ok(Query(query.0)),
            Err(rejection) => {
                let text = rejection.body_text();
                let detail = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                // "name: what is wrong", where the parser knows the name.
                let (name, what) = detail.split_once(": ").unwrap_or_else(|| (quoted(detail), detail));
                Err(Problem::field(Code::InvalidQuery, name, in_plain_words(what)))
            }
        }
    }
}

/// The name in a message such as "duplicate field `queue`".
fn quoted(text: &str) -> &str {
    text.split('`').nth(1).unwrap_or("")
}

/// One path parameter.
#[derive(Debug, Clone)]
pub struct PathParameter<T>(pub T);

impl<S, T> FromRequestParts<S> for PathParameter<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(path) => Ok(PathParameter(path.0)),
            Err(rejection) => Err(wrong_path(&rejection)),
        }
    }
}

fn wrong_path(rejection: &PathRejection) -> Problem {
    let (name, what) = match rejection {
        PathRejection::FailedToDeserializePathParams(failed) => match failed.kind() {
            ErrorKind::DeserializeError { key, message, .. } => (key.as_str(), in_plain_words(message)),
            ErrorKind::InvalidUtf8InPathParam { key } => (key.as_str(), "must be UTF-8".to_owned()),
            other => ("path", other.to_string()),
        },
        other => ("path", other.body_text()),
    };
    Problem::field(Code::InvalidPath, name, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[allow(dead_code)]
        items: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        size: u32,
    }

    fn problem(text: &str) -> Problem {
        parse_json::<Outer>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn wrong_shapes_are_named_by_a_pointer() {
        let wrong_type = problem(r#"{"items":[{"size":1},{"size":"x"}]}"#);
        assert_eq!((wrong_type.code, wrong_type.errors[0].pointer.as_str()), (Code::InvalidBody, "/items/1/size"));
        let negative = problem(r#"{"items":[{"size":-1}]}"#);
        assert_eq!((negative.code, negative.errors[0].pointer.as_str()), (Code::InvalidBody, "/items/0/size"));
        let unknown = problem(r#"{"items":[{"size":1,"colour":2}]}"#);
        assert_eq!((unknown.code, unknown.errors[0].pointer.as_str()), (Code::InvalidBody, "/items/0/colour"));
    }

    #[test]
    fn messages_do_not_speak_rust() {
        for (theirs, ours) in [
            (
                "invalid type: string \"x\", expected i64 at line 1 column 9",
                "invalid type: string \"x\", expected a whole number at line 1 column 9",
            ),
            (
                "invalid type: map, expected a sequence at line 1 column 9",
                "invalid type: object, expected a list at line 1 column 9",
            ),
            ("premature end of input at line 2 column 7", &format!("{TIME} at line 2 column 7")),
            ("input contains invalid characters", TIME),
            ("invalid digit found in string", "must be a whole number"),
            (
                "UUID parsing failed: invalid length: found 1",
                "must be an id: a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057",
            ),
            ("missing field `url` at line 1 column 2", "missing field `url` at line 1 column 2"),
        ] {
            assert_eq!(in_plain_words(theirs), ours);
        }
        let negative = problem(r#"{"items":[{"size":-1}]}"#);
        assert_eq!(
            negative.errors[0].detail,
            "invalid value: number `-1`, expected a whole number, 0 or more at line 1 column 20"
        );
    }

    #[test]
    fn a_merge_patch_may_be_announced_as_one_and_nothing_else_may() {
        let taken = |method: Method, media: &str| {
            let request = Request::builder().method(method).header(header::CONTENT_TYPE, media);
            require_json(&request.body(Body::empty()).unwrap()).is_ok()
        };
        for media in ["application/json", "application/merge-patch+json", "Application/Merge-Patch+JSON; charset=utf-8"]
        {
            assert!(taken(Method::PATCH, media), "{media}");
        }
        assert!(
            !taken(Method::POST, "application/merge-patch+json")
                && !taken(Method::PATCH, "application/json-patch+json")
        );
    }

    #[test]
    fn text_that_is_not_json_is_told_from_json_of_the_wrong_shape() {
        for text in ["", "{", "nonsense", "{\"items\":[]} trailing", "\u{0}"] {
            assert_eq!(problem(text).code, Code::InvalidJson, "{text:?}");
        }
    }
}
