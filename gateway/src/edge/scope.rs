//! What a key allows: every operation names its scope in `router.rs`, and is wrapped in [`require`] there.

use axum::extract::Request;
use http::header;
use taskmaster_openapi::key::Scope;
use taskmaster_openapi::task::Work;
use taskmaster_openapi::{Code, FieldError, Problem, limits};
use taskmaster_store::TaskToCreate;

use crate::edge::client::Client;

/// Refuses whoever may not do this.
///
/// # Errors
/// `insufficient_scope`.
pub(crate) fn require(scope: Scope, request: &Request) -> Result<(), Problem> {
    match request.extensions().get::<Client>().is_some_and(|client| client.may(scope)) {
        true => Ok(()),
        false => Err(insufficient(scope, Vec::new())),
    }
}

/// Refuses tasks that run commands, unless the client may have commands run. Pointers begin with the prefix: `/tasks/17/command`.
///
/// # Errors
/// `insufficient_scope`, with the fields.
pub(crate) fn require_for_commands(
    client: &Client,
    tasks: &[TaskToCreate],
    prefix: impl Fn(usize) -> String,
) -> Result<(), Problem> {
    if client.may(Scope::CommandsRun) {
        return Ok(());
    }
    let field = |(i, task): (usize, &TaskToCreate)| {
        let name = match task.work {
            Work::Command(_) => "command",
            Work::Argv(_) => "argv",
            Work::Http(_) => return None,
        };
        Some(FieldError::new(format!("{}/{name}", prefix(i)), "wants an API key with the scope `commands:run`"))
    };
    let errors: Vec<FieldError> = tasks.iter().enumerate().filter_map(field).take(limits::PROBLEM_ERRORS_MAX).collect();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(insufficient(Scope::CommandsRun, errors)),
    }
}

/// The refusal, with the scope as RFC 6750, 3 has it.
fn insufficient(scope: Scope, errors: Vec<FieldError>) -> Problem {
    let scope = scope.as_str();
    let detail = format!("This wants an API key with the scope `{scope}`, which this one does not have.");
    let mut problem = Problem::new(Code::InsufficientScope, detail)
        .with_header(header::WWW_AUTHENTICATE, format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""));
    problem.errors = errors;
    problem
}
