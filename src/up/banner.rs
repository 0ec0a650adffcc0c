//! What `up` prints: where everything is, and a line that works when pasted.

use std::net::SocketAddr;
use std::time::Duration;

use super::UpArgs;

pub(super) struct Facts {
    pub api: SocketAddr,
    pub database: String,
}

#[allow(clippy::print_stdout, reason = "what the user of `up` reads")]
pub(super) fn print(args: &UpArgs, facts: &Facts, took: Duration) {
    println!("{}", text(args, facts, took));
}

#[allow(clippy::print_stdout, reason = "what the user of `up` reads")]
pub(super) fn print_stopping() {
    println!("\nStopping: running tasks may finish, the rest is kept. Ctrl-C again ends at once.");
}

fn text(args: &UpArgs, facts: &Facts, took: Duration) -> String {
    let (api, database) = (facts.api, &facts.database);
    let workers = match (args.workers, args.slots, args.simulate) {
        (workers, slots, None) => format!("{workers} with {slots} slots each"),
        (workers, slots, Some(took)) => {
            format!("{workers} with {slots} slots each; they only pretend, and take {} s a task", took.as_secs_f64())
        }
    };
    format!(
        "
TaskMaster is ready after {:.1} s.

  API          http://{api}/v1/tasks
  Swagger UI   http://{api}/docs
  Events       http://{api}/v1/events
  Workers      {workers}
  Database     {database}

Create a task:

  curl -s http://{api}/v1/tasks -H 'Content-Type: application/json' -d '{{\"command\": \"echo hello\"}}'

Watch what happens:

  curl -sN http://{api}/v1/events

Ctrl-C stops everything.",
        took.as_secs_f64()
    )
}
