//! What becomes of tasks, and what is known of it afterwards.

use serde_json::json;
use taskmaster_openapi::task::TaskStatus;

use crate::support::{Answer, System, Target};

#[tokio::test]
async fn an_http_task_is_called_as_it_was_written_and_its_answer_is_kept() {
    let target = Target::start(|_| Answer::status(201).header("x-answer", "yes").body("välkommen")).await;
    let system = System::builder().start().await;
    let task = system
        .api
        .run(json!({"http": {"method": "PUT", "url": target.url("/p?q=1"), "headers": {"X-Ask": "why", "Content-Type": "text/plain"}, "body": "därför"}}))
        .await;
    assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
    let result = task.result.unwrap();
    assert_eq!((result.http_status, result.body.as_deref()), (Some(201), Some("välkommen")));
    assert_eq!(result.headers["x-answer"], "yes");

    let [arrival] = target.of(task.id).try_into().unwrap();
    assert_eq!((arrival.method.as_str(), arrival.path.as_str()), ("PUT", "/p?q=1"));
    assert_eq!(arrival.headers["x-ask"], "why");
    assert_eq!(arrival.headers["content-type"], "text/plain");
    assert_eq!(arrival.body, "därför".as_bytes());
    assert_eq!(arrival.attempt, Some(1));
}
