//! What is to be done: exactly one of a command line, a program with arguments, and an HTTP request.

use taskmaster_openapi::limits;
use taskmaster_openapi::task::{HttpWork, Work};

use super::{Errors, NUL, http};

pub(super) fn work(
    command: Option<String>,
    argv: Option<Vec<String>>,
    http: Option<HttpWork>,
    errors: &mut Errors,
) -> Option<Work> {
    let given = [("command", command.is_some()), ("argv", argv.is_some()), ("http", http.is_some())];
    let given: Vec<&str> = given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
    if given.len() != 1 {
        let there_are =
            if given.is_empty() { "none of them is there".into() } else { format!("there are {}", given.join(", ")) };
        errors.add("", format!("give exactly one of command, argv and http; {there_are}"));
    }
    if let Some(command) = &command {
        check_command(command, errors);
    }
    if let Some(argv) = &argv {
        check_argv(argv, errors);
    }
    if let Some(http) = &http {
        http::check(http, errors);
    }
    command.map(Work::Command).or(argv.map(Work::Argv)).or(http.map(Work::Http))
}

fn check_command(command: &str, errors: &mut Errors) {
    let max = limits::COMMAND_BYTES_MAX;
    if command.trim_ascii().is_empty() {
        errors.add("/command", "must not be empty");
    } else if command.len() > max {
        errors.add("/command", format!("must have at most {max} bytes, and has {}", command.len()));
    } else if command.contains('\0') {
        errors.add("/command", NUL);
    }
}

fn check_argv(argv: &[String], errors: &mut Errors) {
    let bytes: usize = argv.iter().map(String::len).sum();
    if !(1..=limits::ARGV_MAX).contains(&argv.len()) {
        errors.add("/argv", format!("must have 1 to {} entries, the program first", limits::ARGV_MAX));
        return;
    }
    if bytes > limits::COMMAND_BYTES_MAX {
        let detail = format!("must have at most {} bytes together, and has {bytes}", limits::COMMAND_BYTES_MAX);
        errors.add("/argv", detail);
    }
    if argv.first().is_some_and(String::is_empty) {
        errors.add("/argv/0", "must name the program");
    }
    for (i, argument) in argv.iter().enumerate().filter(|(_, argument)| argument.contains('\0')) {
        let _ = argument;
        errors.add(format!("/argv/{i}"), NUL);
    }
}
