//! `taskmaster-functions`: the names of all functions. `taskmaster-functions NAME CALLS`: calls one so many times. For
//! `.ci/instructions`, which counts what it takes.

use std::hint::black_box;
use std::process::ExitCode;

use taskmaster_functions::{ITEMS, all};

#[allow(clippy::print_stderr, reason = "for whoever calls it")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.as_slice() {
        [] => list(),
        [name, calls] => call(name, calls),
        _ => Err("usage: taskmaster-functions [NAME CALLS]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "the names are what the command is for")]
fn list() -> Result<(), String> {
    all().for_each(|function| println!("{}", function.name));
    Ok(())
}

fn call(name: &str, calls: &str) -> Result<(), String> {
    let calls: usize = calls.parse().map_err(|_| "CALLS must be a whole number".to_owned())?;
    let function = all().find(|function| function.name == name).ok_or_else(|| format!("no function {name}"))?;
    let mut call = (function.prepare)();
    for _ in 0..calls {
        let done = black_box(call());
        if done != ITEMS {
            return Err(format!("{name} worked on {done} items, not on {ITEMS}"));
        }
    }
    Ok(())
}
