//! `/v1/webhooks/{id}/deliveries`, tests and replays: what was sent to a subscriber, and what is sent once more.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::{StatusCode, header};
use serde::Deserialize;
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::task::TaskStatus;
use taskmaster_openapi::webhook::{Delivery, DeliveryDetail, DeliveryList, ReplayRequest, ReplayResponse};
use taskmaster_openapi::{Code, FieldError, Problem};
use taskmaster_service::extract::{Json, PathParameter, Query};
use taskmaster_store::webhooks::deliveries::{Asked, Range};
use uuid::Uuid;

use crate::app::App;
use crate::webhooks::{disabled, not_found};
use crate::{list, page_token, validate};

/// `DeliveryFilter` and `Page` together: flattened types could not refuse unknown parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeliveriesQuery {
    status: Option<TaskStatus>,
    page_size: Option<i64>,
    page_token: Option<String>,
}

/// Which delivery.
#[derive(Debug, Deserialize)]
pub(crate) struct DeliveryPath {
    id: Uuid,
    delivery_id: Uuid,
}

/// `GET /v1/webhooks/{id}/deliveries`
pub(crate) async fn list(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    Query(query): Query<DeliveriesQuery>,
) -> Result<Response, Problem> {
    let page_size = list::page_size(query.page_size)?;
    let filter = (id, query.status);
    let token = query.page_token.filter(|token| !token.is_empty());
    let before = token.map(|token| page_token::read(&filter, &token)).transpose()?;
    app.store.webhook(id).await?.ok_or_else(not_found)?;
    let page = app.store.deliveries_of(id, query.status, before, page_size).await?;
    let next_page_token = page.next.map(|next| page_token::write(&filter, next)).unwrap_or_default();
    let link = (!next_page_token.is_empty()).then(|| {
        let status = query.status.map(|status| format!("status={}&", status.as_str())).unwrap_or_default();
        let path = paths::DELIVERIES.replace("{id}", &id.to_string());
        format!("<{path}?{status}page_size={page_size}&page_token={next_page_token}>; rel=\"next\"")
    });
    let answer = axum::Json(DeliveryList { deliveries: page.deliveries, next_page_token }).into_response();
    Ok(match link {
        Some(link) => ([(header::LINK, link)], answer).into_response(),
        None => answer,
    })
}

/// `GET /v1/webhooks/{id}/deliveries/{delivery_id}`
pub(crate) async fn get(
    State(app): State<App>,
    PathParameter(path): PathParameter<DeliveryPath>,
) -> Result<axum::Json<DeliveryDetail>, Problem> {
    Ok(axum::Json(app.store.delivery(path.id, path.delivery_id).await?.ok_or_else(no_delivery)?))
}

/// `POST /v1/webhooks/{id}/test`
pub(crate) async fn test(State(app): State<App>, PathParameter(id): PathParameter<Uuid>) -> Result<Response, Problem> {
    on_its_way(done(app.store.test_webhook(id).await?)?)
}

/// `POST /v1/webhooks/{id}/deliveries/{delivery_id}/replay`
pub(crate) async fn replay_one(
    State(app): State<App>,
    PathParameter(path): PathParameter<DeliveryPath>,
) -> Result<Response, Problem> {
    on_its_way(done(app.store.replay_delivery(path.id, path.delivery_id).await?)?)
}

/// `POST /v1/webhooks/{id}/replay`
pub(crate) async fn replay(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    Json(asked): Json<ReplayRequest>,
) -> Result<axum::Json<ReplayResponse>, Problem> {
    let dry_run = asked.dry_run;
    let replay = done(app.store.replay(id, &range(asked)?, dry_run).await?)?;
    Ok(axum::Json(ReplayResponse {
        dry_run,
        matched: replay.matched as i64,
        replayed: replay.replayed as i64,
        more: replay.more_after.is_some(),
        next_created_after: replay.more_after,
    }))
}

fn range(asked: ReplayRequest) -> Result<Range, Problem> {
    let mut errors = Vec::new();
    let status = asked.status.unwrap_or(TaskStatus::Failed);
    if matches!(status, TaskStatus::Picked | TaskStatus::Started) {
        errors.push(FieldError::new(
            "/status",
            "must be one of FAILED, COMPLETE, CANCELLED, QUEUED: others are on their way",
        ));
    }
    let times = [("/created_after", asked.created_after), ("/created_before", asked.created_before)];
    let unstorable = |at: &Option<DateTime<Utc>>| at.is_some_and(|at| !validate::is_storable(at));
    for (pointer, _) in times.iter().filter(|(_, at)| unstorable(at)) {
        errors.push(FieldError::new(*pointer, "must lie in the years 1970 to 9999"));
    }
    match errors.is_empty() {
        true => Ok(Range { status, created_after: asked.created_after, created_before: asked.created_before }),
        false => Err(Problem::validation(errors)),
    }
}

fn done<T>(asked: Asked<T>) -> Result<T, Problem> {
    match asked {
        Asked::Done(done) => Ok(done),
        Asked::Disabled => Err(disabled()),
        Asked::NoWebhook => Err(not_found()),
        Asked::NoDelivery => Err(no_delivery()),
    }
}

fn no_delivery() -> Problem {
    Problem::new(Code::DeliveryNotFound, "The webhook has no delivery with this id, or it is no longer kept.")
}

fn on_its_way(delivery: Delivery) -> Result<Response, Problem> {
    let path = paths::DELIVERY.replace("{id}", &delivery.webhook_id.to_string());
    let location = path.replace("{delivery_id}", &delivery.id.to_string());
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], axum::Json(delivery)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_of_what_has_ended_or_waits() {
        let of = |body: &str| {
            range(serde_json::from_str(body).unwrap()).map_err(|problem| problem.errors[0].pointer.clone())
        };
        assert_eq!(of("{}").unwrap().status, TaskStatus::Failed);
        assert_eq!(of(r#"{"status":"STARTED"}"#).unwrap_err(), "/status");
        assert_eq!(of(r#"{"created_after":"+20000-01-01T00:00:00Z"}"#).unwrap_err(), "/created_after");
    }
}
