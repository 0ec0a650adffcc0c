use std::process::ExitCode;

use taskmaster::cli::Command;
use taskmaster::{bench, cli, conformance, documents, health, keys, parts, up};
use taskmaster_service::{Shutdown, logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::parse();
    if let Command::CommandGuard = cli.command {
        taskmaster_worker::guard_main();
        return ExitCode::SUCCESS;
    }
    if let Err(error) = logging::init(&cli.log) {
        return failed(&error);
    }
    let mut runtime = match cli.command {
        // What it runs are other processes, and requests: a thread more would only be woken besides.
        Command::Worker(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start threads: {error}")),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn run(command: Command) -> Result<(), String> {
    let shutdown = Shutdown::on_signals().map_err(|error| format!("cannot listen for signals: {error}"))?;
    match command {
        Command::Up(args) => up::run(args, shutdown).await,
        Command::Gateway(args) => parts::gateway(args, shutdown).await,
        Command::Coordinator(args) => parts::coordinator(args, shutdown).await,
        Command::Worker(args) => parts::worker(args, shutdown).await,
        Command::Migrate(args) => parts::migrate(args).await,
        Command::Keys(args) => keys::run(args).await,
        Command::Openapi(args) => documents::run(&args),
        Command::Bench(args) => bench::run(*args, shutdown).await,
        Command::Conformance(args) => conformance::run(args, shutdown).await,
        Command::Health(args) => health::run(&args).await,
        Command::CommandGuard => Ok(()),
    }
}

/// The one line that says why the program ends.
#[allow(clippy::print_stderr, reason = "the last word of the program is for its user, logs or not")]
fn failed(error: &str) -> ExitCode {
    eprintln!("taskmaster: {error}");
    ExitCode::FAILURE
}
