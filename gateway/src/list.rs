//! `GET /v1/tasks`: pages of tasks, newest first.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::header;
use reqwest::Url;
use serde::Deserialize;
use taskmaster_openapi::gateway::{TaskFilter, TaskList, paths};
use taskmaster_openapi::task::TaskStatus;
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::Query;
use taskmaster_store::Seen;
use uuid::Uuid;

use crate::app::App;
use crate::{aged, page_token, validate};

/// [`TaskFilter`] and `Page` together: flattened types could not refuse unknown parameters.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    status: Option<TaskStatus>,
    queue: Option<String>,
    tag: Option<String>,
    worker_id: Option<String>,
    schedule_id: Option<Uuid>,
    created_after: Option<DateTime<Utc>>,
    created_before: Option<DateTime<Utc>>,
    page_size: Option<i64>,
    page_token: Option<String>,
}

/// `GET /v1/tasks`
pub(crate) async fn list(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let page_size = page_size(query.page_size)?;
    let (filter, token) = filter(query)?;
    let before = token.map(|token| page_token::read(&filter, &token)).transpose()?;
    let Seen { value: page, age } = app.store.read_list(&filter, before, page_size).await?;
    let next_page_token = page.next.map(|id| page_token::write(&filter, id)).unwrap_or_default();
    let link = (!next_page_token.is_empty()).then(|| next_link(&filter, page_size, &next_page_token));
    let answer = aged::json(Seen { value: TaskList { tasks: page.tasks, next_page_token }, age });
    Ok(match link {
        Some(link) => ([(header::LINK, link)], answer).into_response(),
        None => answer,
    })
}

/// What a request asks for, within bounds.
///
/// # Errors
/// `invalid_query`.
pub(crate) fn page_size(asked: Option<i64>) -> Result<i64, Problem> {
    match asked.unwrap_or(limits::PAGE_SIZE_DEFAULT) {
        ..=0 => Err(Problem::field(Code::InvalidQuery, "page_size", "must be 1 or more")),
        size => Ok(size.min(limits::PAGE_SIZE_MAX)),
    }
}

/// The filters, of values that the database can be asked for, and the page token.
fn filter(query: ListQuery) -> Result<(TaskFilter, Option<String>), Problem> {
    let ListQuery {
        status,
        queue,
        tag,
        worker_id,
        schedule_id,
        created_after,
        created_before,
        page_size: _,
        page_token,
    } = query;
    let filter = TaskFilter { status, queue, tag, worker_id, schedule_id, created_after, created_before };
    if let Some((name, detail)) = validate::wrong_filter(&filter) {
        return Err(Problem::field(Code::InvalidQuery, name, detail));
    }
    // An empty token is what the last page carries: whoever repeats it begins again.
    Ok((filter, page_token.filter(|token| !token.is_empty())))
}

/// The next page as a `Link` (RFC 8288), relative to this list.
fn next_link(filter: &TaskFilter, page_size: i64, token: &str) -> String {
    let time = |at: Option<DateTime<Utc>>| at.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
    let parameters = [
        ("status", filter.status.map(|status| status.as_str().to_owned())),
        ("queue", filter.queue.clone()),
        ("tag", filter.tag.clone()),
        ("worker_id", filter.worker_id.clone()),
        ("schedule_id", filter.schedule_id.map(|id| id.to_string())),
        ("created_after", time(filter.created_after)),
        ("created_before", time(filter.created_before)),
        ("page_size", Some(page_size.to_string())),
        ("page_token", Some(token.to_owned())),
    ];
    let given = parameters.into_iter().filter_map(|(name, value)| Some((name, value?)));
    // Any base does: only the query is taken.
    let query = Url::parse_with_params("http://localhost/", given).ok().and_then(|url| url.query().map(str::to_owned));
    format!("<{}?{}>; rel=\"next\"", paths::TASKS, query.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::FromRequestParts;

    async fn parsed(uri: &str) -> Result<ListQuery, Problem> {
        let (mut parts, ()) = http::Request::builder().uri(uri).body(()).unwrap().into_parts();
        Query::<ListQuery>::from_request_parts(&mut parts, &()).await.map(|query| query.0)
    }

    /// The code and the name of a refusal.
    async fn refusal(query: &str) -> (Code, String) {
        let checked = match parsed(&format!("/v1/tasks?{query}")).await {
            Ok(query) => page_size(query.page_size).and_then(|_| filter(query)),
            Err(problem) => Err(problem),
        };
        let problem = checked.expect_err(query);
        (problem.code, problem.errors[0].pointer.clone())
    }

    #[tokio::test]
    async fn wrong_parameters_are_named() {
        for (query, name) in [
            ("colour=red", "colour"),
            ("status=queued", "status"),
            ("status=", "status"),
            ("queue=a%20b", "queue"),
            ("queue=", "queue"),
            ("tag=a%00b", "tag"),
            ("worker_id=%00", "worker_id"),
            ("schedule_id=5", "schedule_id"),
            ("created_after=yesterday", "created_after"),
            ("created_before=%2B20000-01-01T00:00:00Z", "created_before"),
            ("page_size=0", "page_size"),
            ("page_size=-5", "page_size"),
            ("page_size=many", "page_size"),
            ("queue=a&queue=b", "queue"),
        ] {
            assert_eq!(refusal(query).await, (Code::InvalidQuery, name.to_owned()), "{query}");
        }
    }

    #[test]
    fn page_sizes_have_a_default_and_are_lowered_to_the_maximum() {
        assert_eq!(page_size(None).unwrap(), limits::PAGE_SIZE_DEFAULT);
        assert_eq!(page_size(Some(7)).unwrap(), 7);
        assert_eq!(page_size(Some(i64::MAX)).unwrap(), limits::PAGE_SIZE_MAX);
    }

    #[tokio::test]
    async fn the_link_asks_for_the_next_page_with_the_same_filters() {
        let all = "status=FAILED&queue=q-1&tag=a%20%26%20%C3%A9&worker_id=w.1\
                   &schedule_id=01890a5d-ac96-774b-bcce-b302099a8057&created_after=2026-01-01T00:00:00.123456Z\
                   &created_before=2027-01-01T00:00:00Z";
        let (filters, _) = filter(parsed(&format!("/v1/tasks?{all}")).await.unwrap()).unwrap();
        let token = page_token::write(&filters, Uuid::now_v7());
        let link = next_link(&filters, 10, &token);
        let uri = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
        let next = parsed(uri).await.unwrap();
        assert_eq!((next.page_size, next.page_token.as_deref()), (Some(10), Some(token.as_str())));
        assert_eq!(filter(next).unwrap(), (filters, Some(token)));
    }
}
