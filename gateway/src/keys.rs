//! `/v1/keys`: API keys are made, listed, rotated and revoked.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::key::{IssuedKey, Key, KeyList, NewKey, RotateKeyRequest};
use taskmaster_openapi::{Code, FieldError, Problem, limits};
use taskmaster_service::extract::{Json, PathParameter, Query};
use taskmaster_store::keys::{Expiry, KeyId, KeyToCreate, KeyToken, Rotation, wrong_name};

use crate::app::App;
use crate::signing::overlap;
use crate::{list, once, page_token, validate};

/// `POST /v1/keys`
pub(crate) async fn create(
    State(app): State<App>,
    headers: HeaderMap,
    Json(new): Json<NewKey>,
) -> Result<Response, Problem> {
    if once::key(&headers)?.is_some() {
        let detail = "is not supported here: an answer with a secret is given once. Revoke a key whose answer was lost";
        return Err(Problem::field(Code::InvalidHeader, "Idempotency-Key", detail));
    }
    let token = KeyToken::random(KeyId::random());
    let key = app.store.create_key(&check(new)?, &token).await?;
    let key = key.ok_or_else(|| wrong("/expires_at", "must lie in the future"))?;
    let location = paths::KEY.replace("{id}", &key.id);
    let issued = IssuedKey { key, token: token.expose() };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(issued)).into_response())
}

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysQuery {
    page_size: Option<i64>,
    page_token: Option<String>,
}

/// `GET /v1/keys`
pub(crate) async fn list(State(app): State<App>, Query(query): Query<KeysQuery>) -> Result<Response, Problem> {
    let page_size = list::page_size(query.page_size)?;
    let token = query.page_token.filter(|token| !token.is_empty());
    let after = token.map(|token| page_token::read_key(&token)).transpose()?;
    let mut keys = app.store.keys(after, page_size + 1).await?;
    let more = keys.len() as i64 > page_size;
    keys.truncate(page_size as usize);
    let last = keys.last().filter(|_| more).and_then(|key| KeyId::parse(&key.id));
    let next_page_token = last.map(page_token::write_key).unwrap_or_default();
    let link =
        last.map(|_| format!("<{}?page_size={page_size}&page_token={next_page_token}>; rel=\"next\"", paths::KEYS));
    let answer = axum::Json(KeyList { keys, next_page_token }).into_response();
    Ok(match link {
        Some(link) => ([(header::LINK, link)], answer).into_response(),
        None => answer,
    })
}

/// `GET /v1/keys/{id}`
pub(crate) async fn get(
    State(app): State<App>,
    PathParameter(id): PathParameter<String>,
) -> Result<axum::Json<Key>, Problem> {
    Ok(axum::Json(app.store.key(parse(&id)?).await?.ok_or_else(not_found)?))
}

/// `POST /v1/keys/{id}/rotate`
pub(crate) async fn rotate(
    State(app): State<App>,
    PathParameter(id): PathParameter<String>,
    Json(asked): Json<RotateKeyRequest>,
) -> Result<axum::Json<IssuedKey>, Problem> {
    let (id, overlap) = (parse(&id)?, overlap(asked.overlap_seconds)?);
    let token = KeyToken::random(id);
    let rotated = app.store.rotate_key(&token, overlap).await?;
    app.keyring.forget(id);
    match rotated {
        Rotation::Rotated(key) => Ok(axum::Json(IssuedKey { key, token: token.expose() })),
        Rotation::NotActive => {
            Err(Problem::new(Code::KeyNotActive, "The key was revoked, or has expired: make a new one."))
        }
        Rotation::NotFound => Err(not_found()),
    }
}

/// `DELETE /v1/keys/{id}`
pub(crate) async fn revoke(
    State(app): State<App>,
    PathParameter(id): PathParameter<String>,
) -> Result<StatusCode, Problem> {
    let id = parse(&id)?;
    let found = app.store.revoke_key(id).await?;
    app.keyring.forget(id);
    match found {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(not_found()),
    }
}

fn parse(id: &str) -> Result<KeyId, Problem> {
    let wrong = || Problem::field(Code::InvalidPath, "id", "must be the id of an API key: 12 letters and digits");
    KeyId::parse(id).ok_or_else(wrong)
}

fn not_found() -> Problem {
    Problem::new(Code::KeyNotFound, "No API key has this id. GET /v1/keys lists those that there are.")
}

fn wrong(pointer: &str, detail: impl Into<String>) -> Problem {
    Problem::validation(vec![FieldError::new(pointer, detail)])
}

fn check(new: NewKey) -> Result<KeyToCreate, Problem> {
    let mut errors = Vec::new();
    if let Some(detail) = wrong_name(&new.name) {
        errors.push(FieldError::new("/name", detail));
    }
    if new.scopes.is_empty() {
        errors.push(FieldError::new("/scopes", "must have at least one scope"));
    }
    for (i, scope) in new.scopes.iter().enumerate() {
        if new.scopes[..i].contains(scope) {
            errors.push(FieldError::new(format!("/scopes/{i}"), "is given twice"));
        }
    }
    let expiry = match (new.expires_in_seconds, new.expires_at) {
        (None, None) => Expiry::Never,
        (Some(seconds @ 1..=limits::KEY_SECONDS_MAX), None) => {
            Expiry::After(Duration::from_secs(seconds.unsigned_abs()))
        }
        (None, Some(at)) if validate::is_storable(at) => Expiry::At(at),
        (Some(_), Some(_)) => {
            errors.push(FieldError::new("/expires_in_seconds", "cannot be given together with expires_at"));
            Expiry::Never
        }
        (Some(_), None) => {
            let detail = format!("must be a whole number from 1 to {}", limits::KEY_SECONDS_MAX);
            errors.push(FieldError::new("/expires_in_seconds", detail));
            Expiry::Never
        }
        (None, Some(_)) => {
            errors.push(FieldError::new("/expires_at", "must lie in the years 1970 to 9999"));
            Expiry::Never
        }
    };
    match errors.is_empty() {
        true => Ok(KeyToCreate { name: new.name, scopes: new.scopes, expiry }),
        false => Err(Problem::validation(errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(body: &str) -> Vec<String> {
        let checked = check(serde_json::from_str(body).unwrap());
        checked.err().map(|problem| problem.errors.into_iter().map(|error| error.pointer).collect()).unwrap_or_default()
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        let table: [(&str, &[&str]); 8] = [
            (r#"{"name":"a","scopes":["admin"]}"#, &[]),
            (r#"{"name":"a","scopes":["admin"],"expires_in_seconds":1}"#, &[]),
            (r#"{"name":"a","scopes":["admin"],"expires_at":"2100-01-01T00:00:00Z"}"#, &[]),
            (r#"{"name":"","scopes":[]}"#, &["/name", "/scopes"]),
            (r#"{"name":"a","scopes":["workers","admin","workers"]}"#, &["/scopes/2"]),
            (r#"{"name":"a","scopes":["admin"],"expires_in_seconds":0}"#, &["/expires_in_seconds"]),
            (r#"{"name":"a","scopes":["admin"],"expires_in_seconds":315576001}"#, &["/expires_in_seconds"]),
            (
                r#"{"name":"a","scopes":["admin"],"expires_in_seconds":1,"expires_at":"2100-01-01T00:00:00Z"}"#,
                &["/expires_in_seconds"],
            ),
        ];
        for (body, expected) in table {
            assert_eq!(pointers(body), expected, "{body}");
        }
    }

    #[test]
    fn an_overlap_is_at_most_thirty_days() {
        let of = |seconds| overlap(seconds).map(|overlap| overlap.as_secs()).ok();
        assert_eq!([of(None), of(Some(0)), of(Some(2_592_000))], [Some(86_400), Some(0), Some(2_592_000)]);
        assert_eq!([of(Some(-1)), of(Some(2_592_001))], [None, None]);
    }
}
