//! Workers in three languages keep one contract, by the test that authors of others run: `taskmaster conformance`. And that test finds
//! what breaks it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TASKMASTER: &str = env!("CARGO_BIN_EXE_taskmaster");

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("worker/examples").join(name)
}

/// Runs the test on a worker that is started like this.
fn conformance(options: &[&str], worker: &[&str]) -> Output {
    let mut command = Command::new(TASKMASTER);
    command.arg("conformance").args(options).arg("--").args(worker);
    command.output().unwrap()
}

/// Every claim holds, but for so many that do not apply.
fn keeps_the_contract(worker: &[&str], inapplicable: usize) {
    let output = conformance(&["--patience-seconds", "60"], worker);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let lines = |begin: &str| text.lines().filter(|line| line.starts_with(begin)).count();
    assert_eq!((lines("ok ") + lines("skip "), lines("skip ")), (22, inapplicable), "{text}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn our_worker_keeps_the_contract() {
    let worker = [TASKMASTER, "worker", "--allow-targets", "loopback"];
    keeps_the_contract(&worker, 0);
}

#[test]
fn the_python_worker_keeps_the_contract() {
    let worker = example("worker.py");
    keeps_the_contract(
        &[
            "python3",
            path(&worker),
            "--coordinator",
            "{coordinator}",
            "--join-token",
            "{join_token}",
            "--allow-commands",
        ],
        1,
    );
}

#[test]
fn the_node_worker_keeps_the_contract() {
    let worker = example("worker.js");
    keeps_the_contract(&["node", path(&worker), "--coordinator", "{coordinator}", "--join-token", "{join_token}"], 0);
}

/// What is changed in the Python worker, and the claim that does not hold then.
const BREACHES: [(&str, &str, &str); 8] = [
    ("answer[\"token\"], [", "options.join_token, [", "joins with the join token"),
    ("due <= now < lease_until", "due <= now", "starts nothing when its lease is over"),
    ("due <= now < lease_until", "due - 0.2 <= now < lease_until", "starts nothing early"),
    ("if any(key in known", "if False and any(key in known", "takes a claim once"),
    ("if room() == 0: return \"no_room\"", "", "takes as much as it has room for"),
    ("{*waiting, *running, *unsent}", "{*waiting, *running}", "names all that it holds"),
    ("result[\"code\"] != \"not_recorded\"", "True", "reports again and again"),
    ("* SLOTS: threading", "* (SLOTS + 1): threading", "at once as it has slots"),
];

#[test]
fn a_worker_that_breaks_the_contract_is_found_out() {
    let source = std::fs::read_to_string(example("worker.py")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (i, (right, wrong, claim)) in BREACHES.into_iter().enumerate() {
        let broken = source.replacen(right, wrong, 1);
        assert_ne!(broken, source, "worker.py has no {right:?} any more");
        let file = directory.path().join(format!("worker{i}.py"));
        std::fs::write(&file, broken).unwrap();
        let worker = ["python3", path(&file), "--coordinator", "{coordinator}", "--join-token", "{join_token}"];
        let output = conformance(&["--only", claim, "--patience-seconds", "10"], &worker);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && text.starts_with("FAIL  "), "{claim}: {text}");
    }
}

#[test]
fn a_worker_that_does_not_start_is_told_of_at_once() {
    for (worker, says) in [(vec!["/does/not/exist"], "cannot start"), (vec!["false"], "ended by itself")] {
        let output = conformance(&["--only", "starts nothing early"], &worker);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && text.contains(says), "{worker:?}: {text}");
    }
    let output = conformance(&["--only", "no such claim"], &["true"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no claim has `no such claim`"));
}
