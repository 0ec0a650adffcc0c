//! One task at a time: how long until it is created, and until it starts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use taskmaster_openapi::task::NewTask;
use uuid::Uuid;

use super::BenchArgs;
use super::client::{Client, ms};
use super::figures::Report;
use super::load::{Progress, watch};

/// Between two tasks: everything that the one before caused is over.
const PAUSE: Duration = Duration::from_millis(30);

pub(super) async fn measure(args: &BenchArgs, client: &Client, task: &NewTask) -> Result<Report, String> {
    let tasks = args.tasks_or(500).into();
    let progress = Arc::new(Progress::default());
    let before = client.recorded().await?;
    let mut create_ms = Vec::new();
    let mut asked: HashMap<Uuid, DateTime<Utc>> = HashMap::new();
    let ask = async {
        let body = bytes::Bytes::from(client.body(task, 1)?);
        for _ in 0..tasks {
            let (moment, began) = (Utc::now(), Instant::now());
            let created = client.create_one(body.clone()).await?;
            create_ms.push(began.elapsed().as_secs_f64() * 1000.0);
            asked.insert(created, moment);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    };
    let (_, ()) = tokio::try_join!(watch(args, client, &progress, before, || Some(tasks)), ask)?;
    let (mut start_ms, mut end_ms) = (Vec::new(), Vec::new());
    for times in client.times(asked.keys().copied().collect()).await? {
        if let Some(asked) = asked.get(&times.id) {
            start_ms.push(ms(*asked, times.started_at));
            end_ms.push(ms(*asked, times.ended_at));
        }
    }
    Ok(Report::new(format!("{tasks} tasks, one every {} ms", PAUSE.as_millis()))
        .times("create", create_ms, "from the request to 201")
        .times("start", start_ms, "from the request to its start at the worker")
        .times("end", end_ms, "from the request to its end"))
}
