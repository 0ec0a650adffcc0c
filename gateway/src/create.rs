//! Single creates that arrive together are stored by one statement; each caller has its own answer, after the commit.

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use taskmaster_openapi::task::{Task, Work};
use taskmaster_openapi::{Code, Problem};
use taskmaster_service::batch::{BatchError, BatchLimits, Batcher};
use taskmaster_store::{Store, StoreError, TaskToCreate};

/// A batch has at most 1,000 tasks and, since a task weighs one more for each 16 KiB, about 16 MiB.
const LIMITS: BatchLimits = BatchLimits { waiting_max: 20_000, batch_weight_max: 1_000, concurrency: 2, pace: None };
const WEIGHT_BYTES: usize = 16 * 1024;

type Answer = Result<Task, Problem>;

/// Stores single tasks, many at a time.
#[derive(Debug, Clone)]
pub(crate) struct Creator(Batcher<TaskToCreate, Answer>);

impl Creator {
    /// A creator, and the future that drives it until every clone is dropped. A statement that takes longer than the time-out
    /// counts as failed.
    pub(crate) fn new(store: Store, timeout: Duration) -> (Self, impl Future<Output = ()> + Send) {
        let (batcher, driver) = Batcher::new(LIMITS, weight, move |tasks: Vec<TaskToCreate>| {
            let store = store.clone();
            async move {
                let count = tasks.len();
                match tokio::time::timeout(timeout, create_each(&store, &tasks)).await {
                    Ok(answers) => answers,
                    Err(_) => vec![Err(took_too_long()); count],
                }
            }
        });
        (Self(batcher), driver)
    }

    /// Stores one task and answers once it is committed.
    ///
    /// # Errors
    /// What the store refuses; `overloaded` when too many wait.
    pub(crate) async fn create(&self, task: TaskToCreate) -> Answer {
        self.0.submit(task).await.unwrap_or_else(|error| {
            Err(match error {
                BatchError::Overloaded => {
                    Problem::new(Code::Overloaded, "Too many tasks wait to be stored.").retry_after_seconds(1)
                }
                BatchError::Stopped => {
                    Problem::new(Code::ShuttingDown, "This gateway is stopping.").retry_after_seconds(1)
                }
            })
        })
    }
}

fn took_too_long() -> Problem {
    Problem::new(Code::DatabaseUnavailable, "The database did not answer in time.").retry_after_seconds(2)
}

fn weight(task: &TaskToCreate) -> usize {
    let bytes = match &task.work {
        Work::Command(command) => command.len(),
        Work::Argv(argv) => argv.iter().map(String::len).sum(),
        Work::Http(http) => {
            let headers: usize = http.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            let body = http.body.as_ref().or(http.body_base64.as_ref()).map_or(0, String::len);
            http.url.len() + headers + body
        }
    };
    1 + bytes / WEIGHT_BYTES
}

/// Where tasks are stored, all or none.
trait Insert: Sync {
    fn insert(&self, tasks: &[TaskToCreate]) -> impl Future<Output = Result<Vec<Task>, StoreError>> + Send;
}

impl Insert for Store {
    fn insert(&self, tasks: &[TaskToCreate]) -> impl Future<Output = Result<Vec<Task>, StoreError>> + Send {
        self.create(tasks)
    }
}

/// Stores what can be stored: when the statement is refused for good because of one task, halves are tried, down to the one.
async fn create_each(store: &impl Insert, tasks: &[TaskToCreate]) -> Vec<Answer> {
    let mut answers: Vec<Option<Answer>> = vec![None; tasks.len()];
    let mut left = Vec::from([Range { start: 0, end: tasks.len() }]);
    while let Some(range) = left.pop() {
        match store.insert(&tasks[range.clone()]).await {
            Ok(stored) => {
                for (answer, task) in answers[range].iter_mut().zip(stored) {
                    *answer = Some(Ok(task));
                }
            }
            Err(error) if !error.is_temporary() && range.len() > 1 => {
                let middle = range.start + range.len() / 2;
                left.extend([middle..range.end, range.start..middle]);
            }
            Err(error) => {
                let problem = Problem::from(error);
                answers[range].fill(Some(Err(problem)));
            }
        }
    }
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(Problem::internal()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;
    use std::sync::Mutex;
    use taskmaster_openapi::task::TaskStatus;

    /// Refuses statements that have a task of the queue `one-too-many`, or any statement at all.
    #[derive(Default)]
    struct Fake {
        unavailable: bool,
        statements: Mutex<Vec<usize>>,
    }

    impl Insert for Fake {
        async fn insert(&self, tasks: &[TaskToCreate]) -> Result<Vec<Task>, StoreError> {
            self.statements.lock().unwrap().push(tasks.len());
            if self.unavailable {
                return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
            }
            if tasks.iter().any(|task| task.queue == "one-too-many") {
                return Err(StoreError::TooManyQueues);
            }
            Ok(tasks.iter().map(stored).collect())
        }
    }

    fn stored(task: &TaskToCreate) -> Task {
        Task {
            id: task.id,
            status: TaskStatus::Queued,
            command: None,
            argv: None,
            http: None,
            queue: task.queue.clone(),
            requires: task.requires.clone(),
            priority: 0,
            attempt: 0,
            max_attempts: 3,
            retry: Default::default(),
            timeout_seconds: 300,
            tags: Vec::new(),
            worker_id: None,
            created_at: Utc::now(),
            scheduled_at: Utc::now(),
            run_at: Utc::now(),
            picked_at: None,
            started_at: None,
            completed_at: None,
            failed_at: None,
            cancelled_at: None,
            cancel_requested_at: None,
            result: None,
            error: None,
            schedule_id: None,
            callback: None,
            failure_callback: None,
            flow_key: None,
            traceparent: None,
            progress: None,
        }
    }

    fn tasks(queues: &[&str]) -> Vec<TaskToCreate> {
        let new = |queue: &&str| taskmaster_openapi::task::NewTask {
            command: Some("x".into()),
            queue: Some((*queue).into()),
            ..Default::default()
        };
        queues.iter().map(|queue| crate::validate::task(new(queue)).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_task_that_is_refused_does_not_fail_its_neighbours() {
        let tasks = tasks(&["a", "b", "one-too-many", "c", "d"]);
        let answers = create_each(&Fake::default(), &tasks).await;
        for (task, answer) in tasks.iter().zip(answers) {
            match task.queue.as_str() {
                "one-too-many" => assert_eq!(answer.unwrap_err().code, Code::TooManyQueues),
                _ => assert_eq!(answer.unwrap().id, task.id),
            }
        }
    }

    #[tokio::test]
    async fn an_unavailable_database_is_asked_once_and_everyone_is_told() {
        let fake = Fake { unavailable: true, ..Fake::default() };
        let answers = create_each(&fake, &tasks(&["a", "b", "c"])).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap_err().code == Code::DatabaseUnavailable));
        assert_eq!(*fake.statements.lock().unwrap(), [3]);
    }

    #[test]
    fn large_tasks_weigh_more() {
        let mut task = tasks(&["a"]).remove(0);
        assert_eq!(weight(&task), 1);
        task.work = Work::Command("x".repeat(128 * 1024));
        assert_eq!(weight(&task), 9);
    }
}
