//! The README keeps its word: what it tells people to type works, and the settings it lists are those that there are.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::support::{Up, command_line};

const README: &str = include_str!("../../README.md");
/// Where the README's examples find the API.
const ADDRESS: &str = "127.0.0.1:8081";

/// Commands that other tests run: which, and where. A new command that is not `curl` is to be added here, with its test.
const TESTED_ELSEWHERE: [(&str, &str); 4] = [
    ("cargo run --release -- up", "tests/system/up.rs"),
    ("python3 worker/examples/worker.py ", "tests/system/foreign.rs"),
    ("docker compose up ", "needs a container engine: compose.yaml is what it runs"),
    ("cargo run --release -- bench", ".ci/run"),
];

/// The commands in the README's `sh` blocks, each as one line.
fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    for block in README.split("\n```").filter_map(|part| part.strip_prefix("sh\n")) {
        let block = block.replace("\\\n", " ");
        let lines = block.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        commands.extend(lines.map(str::to_owned));
    }
    commands
}

/// What stands in backticks within lines.
fn inline() -> impl Iterator<Item = &'static str> {
    README.lines().filter(|line| !line.starts_with("```")).flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[tokio::test]
async fn every_command_of_the_readme_works_as_it_stands() {
    let commands = commands();
    let (curls, others): (Vec<_>, Vec<_>) = commands.iter().partition(|command| command.starts_with("curl "));
    assert!(curls.len() >= 9, "{commands:#?}");
    for command in others {
        let known = TESTED_ELSEWHERE.iter().any(|(begin, _)| command.starts_with(begin));
        assert!(known, "no test runs `{command}`");
    }

    let up = Up::start(&["--ephemeral"]).await;
    let address = up.api.url.strip_prefix("http://").unwrap();
    for command in curls {
        let checked = command.replacen("curl ", "curl --fail-with-body --show-error --max-time 90 ", 1);
        let ran = Command::new("sh").arg("-c").arg(checked.replace(ADDRESS, address)).output().unwrap();
        let (answer, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{command}\n{answer}\n{error}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        if command.contains("echo hello") {
            assert!(answer["result"]["stdout"].as_str().unwrap().starts_with("hello\n"), "{answer}");
        }
    }

    let begins = format!("http://{ADDRESS}");
    let words = inline().flat_map(str::split_whitespace).filter(|word| word.starts_with(&begins));
    let urls: BTreeSet<&str> = words.collect();
    assert!(urls.len() >= 2, "{urls:?}");
    for url in urls {
        let answer = up.api.http().get(url.replace(ADDRESS, address)).send().await.unwrap();
        assert!(answer.status().is_success() || answer.status().is_redirection(), "{url}: {}", answer.status());
    }
}

fn help(command: &[&str]) -> String {
    let output = command_line(&[command, &["--help"]].concat()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The default that a help text has for a variable; none when it does not have the variable.
fn default_in(help: &str, variable: &str) -> Option<String> {
    let named = |line: &&str| line.trim_start().starts_with("[env: ") && line.contains(variable);
    let exact = |line: &&str| {
        let rest = line.trim().trim_start_matches("[env: ").trim_end_matches(']');
        rest.split('=').next() == Some(variable)
    };
    let mut lines = help.lines().skip_while(|line| !(named(line) && exact(line)));
    lines.next()?;
    let default = lines.next().and_then(|line| line.trim().strip_prefix("[default: ")?.strip_suffix(']'));
    Some(default.unwrap_or_default().to_owned())
}

/// The rows of the table that begins with this heading: the cells of each.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, rest) = README.split_once(heading).unwrap_or_else(|| panic!("no table {heading:?}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands in backticks, in order.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_settings_of_the_readme_exist_and_have_the_defaults_it_says() {
    let rows = table("| variable | of | default | |");
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        let [variables, of, defaults, ..] = row[..] else { panic!("{row:?}") };
        let (variables, defaults) = (quoted(variables), quoted(defaults));
        let processes = match of {
            "all" => vec!["up", "gateway", "coordinator", "worker", "migrate"],
            some => some.split(", ").collect(),
        };
        for (i, variable) in variables.iter().enumerate() {
            for process in &processes {
                let default = default_in(&help(&[process]), variable);
                let default = default.unwrap_or_else(|| panic!("taskmaster {process} has no {variable}"));
                assert_eq!(default, defaults.get(i).copied().unwrap_or_default(), "{variable} of {process}");
            }
        }
    }
}

#[test]
fn the_readme_lists_every_command_there_is_and_no_other() {
    let rows = table("| `taskmaster …` | |");
    let listed: BTreeSet<&str> = rows.iter().map(|row| quoted(row[0])[0]).collect();
    let help = help(&[]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let there: BTreeSet<&str> = commands
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert_eq!(listed, there);
    // Flags that the table mentions.
    for row in rows {
        let command = quoted(row[0])[0];
        let text = self::help(&[command]);
        for flag in row[1].split(['`', ' ']).filter(|word| word.starts_with("--")) {
            assert!(text.contains(&format!("{flag} ")) || text.contains(&format!("{flag}\n")), "{command} {flag}");
        }
    }
}

#[test]
fn every_file_that_the_readme_links_to_is_there() {
    let links = README.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let missing: Vec<&str> = links
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .filter(|link| !std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
