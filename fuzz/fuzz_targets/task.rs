//! Bodies: a task alone, and a batch. What is refused is a problem within its bounds; what is taken the database can hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taskmaster_gateway::hot::{parse_batch, validate_task};
use taskmaster_openapi::task::NewTask;
use taskmaster_openapi::{Problem, limits};
use taskmaster_service::extract::parse_json;

fuzz_target!(|bytes: &[u8]| {
    match parse_json::<NewTask>(bytes).and_then(validate_task) {
        Ok(task) => {
            let work = serde_json::to_string(&task.work).expect("work is JSON");
            // PostgreSQL's texts cannot hold it.
            assert!(!work.replace("\\\\", "").contains("\\u0000"), "{work}");
            assert!((0..=9).contains(&task.priority) && (1..=100).contains(&task.max_attempts));
        }
        Err(problem) => check(&problem),
    }
    if let Err(problem) = parse_batch(bytes, true, &Default::default()) {
        check(&problem);
    }
});

fn check(problem: &Problem) {
    assert!(matches!(problem.status, 400 | 422) && problem.errors.len() <= limits::PROBLEM_ERRORS_MAX);
    for error in &problem.errors {
        assert!(error.pointer.chars().count() <= 500 && error.detail.chars().count() <= 2_000, "{error:?}");
    }
    serde_json::to_string(problem).expect("a problem is JSON");
}
