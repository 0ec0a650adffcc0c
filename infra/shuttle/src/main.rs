//! TaskMaster as one service under shuttle-runtime: what `taskmaster up` is, on the address that the host gives.
//!
//! In reading order: `entry` (what Shuttle calls), `service` (runs everything, and drains it).

mod entry;
mod service;

fn main() {
    // The worker starts this program again beside each command it runs, to end it should the worker die.
    if std::env::args().nth(1).as_deref() == Some(taskmaster_worker::GUARD_SUBCOMMAND) {
        taskmaster_worker::guard_main();
        return;
    }
    entry::run();
}
