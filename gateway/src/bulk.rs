//! `POST /v1/tasks/cancel` and `POST /v1/tasks/retry`: many tasks at once, by a filter.

use axum::extract::State;
use taskmaster_openapi::gateway::{BulkRequest, BulkResponse, TaskFilter};
use taskmaster_openapi::task::TaskStatus;
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::Json;
use taskmaster_store::Bulk;

use crate::app::App;
use crate::validate;

/// `POST /v1/tasks/cancel`
pub(crate) async fn cancel(
    State(app): State<App>,
    Json(asked): Json<BulkRequest>,
) -> Result<Json<BulkResponse>, Problem> {
    let live = [TaskStatus::Queued, TaskStatus::Picked, TaskStatus::Started];
    let (filter, dry_run) = check(asked, &live)?;
    let bulk = app.store.cancel_matching(&filter, limits::BULK_TASKS_MAX as usize, dry_run).await?;
    Ok(Json(answer(bulk, dry_run)))
}

/// `POST /v1/tasks/retry`
pub(crate) async fn retry(
    State(app): State<App>,
    Json(asked): Json<BulkRequest>,
) -> Result<Json<BulkResponse>, Problem> {
    let (filter, dry_run) = check(asked, &[TaskStatus::Failed, TaskStatus::Cancelled])?;
    let bulk = app.store.retry_matching(&filter, limits::BULK_TASKS_MAX as usize, dry_run).await?;
    Ok(Json(answer(bulk, dry_run)))
}

/// The filter, which must say something, and whether this is only a look.
fn check(asked: BulkRequest, states: &[TaskStatus]) -> Result<(TaskFilter, bool), Problem> {
    let filter = TaskFilter::from(asked.filter);
    if filter == TaskFilter::default() {
        return Err(Problem::field(Code::ValidationFailed, "/filter", "must have at least one filter"));
    }
    if let Some((name, detail)) = validate::wrong_filter(&filter) {
        return Err(Problem::field(Code::ValidationFailed, format!("/filter/{name}"), detail));
    }
    match filter.status {
        Some(status) if !states.contains(&status) => {
            let allowed: Vec<&str> = states.iter().map(|status| status.as_str()).collect();
            let detail = format!("must be one of {}", allowed.join(", "));
            Err(Problem::field(Code::ValidationFailed, "/filter/status", detail))
        }
        _ => Ok((filter, asked.dry_run)),
    }
}

fn answer(bulk: Bulk, dry_run: bool) -> BulkResponse {
    let Bulk { matched, changed, requested, more } = bulk;
    BulkResponse { dry_run, matched: matched as i64, changed: changed as i64, requested: requested as i64, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> String {
        let asked = serde_json::from_str(body).unwrap();
        check(asked, &[TaskStatus::Failed]).unwrap_err().errors[0].pointer.clone()
    }

    #[test]
    fn a_filter_is_required_and_checked() {
        assert_eq!(refusal(r#"{"filter":{}}"#), "/filter");
        assert_eq!(refusal(r#"{"filter":{"status":"COMPLETE"}}"#), "/filter/status");
        assert_eq!(refusal(r#"{"filter":{"queue":"a b"}}"#), "/filter/queue");
        let fine = serde_json::from_str(r#"{"filter":{"queue":"a"},"dry_run":true}"#).unwrap();
        assert!(check(fine, &[TaskStatus::Failed]).unwrap().1);
    }
}
