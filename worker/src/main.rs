//! The worker as a program of its own, for images that hold nothing else. `taskmaster worker` is the same.

use std::process::ExitCode;

use clap::Parser;
use taskmaster_service::logging::{self, LogArgs};
use taskmaster_service::{Health, Shutdown};
use taskmaster_worker::{Config, GUARD_SUBCOMMAND, guard_main};

/// Runs tasks for TaskMaster: joins a coordinator, takes tasks by HTTP, and reports what became of them
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    worker: Config,
    #[command(flatten)]
    log: LogArgs,
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == GUARD_SUBCOMMAND) {
        return guard_main();
    }
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The logs may be what failed.
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("taskmaster-worker: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    logging::init(&arguments.log)?;
    // What it runs are other processes, and requests: a thread more would only be woken besides.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals()?;
        Ok(taskmaster_worker::run(arguments.worker, Health::new(), shutdown).await?)
    })
}
