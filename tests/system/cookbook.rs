//! The cookbook keeps its word: every line of it runs, in its order and in one shell, and is answered as it says.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use chrono::DateTime;
use serde_json::Value;
use uuid::Uuid;

use crate::support::{PATIENCE, Scratch, Up};

const COOKBOOK: &str = include_str!("../../docs/cookbook.md");
/// Where the cookbook's reader has the API.
const ADDRESS: &str = "127.0.0.1:8081";
/// Ends a command that goes on and on.
const ENDLESS: &str = "# Ctrl-C ends it";
/// What stands for anything: a part of a text, lines, or the rest of an object or a list.
const ANYTHING: &str = "…";
const MARK: &str = "--answered--";

/// Commands, and what is answered: how it is written, and itself.
struct Recipe {
    commands: String,
    answer: Option<(String, String)>,
}

fn recipes() -> Vec<Recipe> {
    let mut recipes: Vec<Recipe> = Vec::new();
    let mut lines = COOKBOOK.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match (kind, recipes.last_mut()) {
            ("sh", _) => recipes.push(Recipe { commands: block.join("\n"), answer: None }),
            ("json" | "text", Some(recipe)) if recipe.answer.is_none() => {
                recipe.answer = Some((kind.to_owned(), block.join("\n")));
            }
            (other, _) => panic!("a block of {other:?} that answers nothing: {block:?}"),
        }
    }
    recipes
}

/// A shell whose variables stay from one recipe to the next.
struct Shell {
    child: Child,
    lines: Receiver<String>,
}

impl Shell {
    fn start(scratch: &Scratch) -> Self {
        let mut command = Command::new("bash");
        command.current_dir(scratch.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("bash");
        let output = child.stdout.take().expect("its output");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut shell = Self { child, lines };
        // A job is a group of processes of its own: all of them can be ended.
        shell.write("exec 2>&1; set -mu");
        shell
    }

    fn write(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("its input");
        writeln!(input, "{text}").and_then(|()| input.flush()).expect("bash reads");
    }

    /// Runs commands to their end: what they print.
    fn run(&mut self, commands: &str) -> String {
        self.write(&format!("{{ {commands}\n}} </dev/null; echo; echo \"{MARK} $?\""));
        let mut output = String::new();
        self.read(|line| {
            let Some(status) = line.strip_prefix(MARK) else {
                output += line;
                output.push('\n');
                return false;
            };
            assert_eq!(status.trim(), "0", "{commands}\n{output}");
            true
        });
        output
    }

    /// Runs commands until what they have printed is enough, then ends them.
    fn run_until(&mut self, commands: &str, is_enough: impl Fn(&str) -> bool) {
        self.write(&format!("{{ {commands}\n}} </dev/null &"));
        let mut output = String::new();
        self.read(|line| {
            output += line;
            output.push('\n');
            is_enough(&output)
        });
        self.write(&format!("kill -- -$!; wait $!; echo \"{MARK}\""));
        self.read(|line| line.starts_with(MARK));
    }

    /// Reads lines until one is the last.
    fn read(&mut self, mut is_last: impl FnMut(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut read = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if is_last(&line) => return,
                Ok(line) => read.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("not answered within {PATIENCE:?}: {}", read.join("\n")),
                Err(RecvTimeoutError::Disconnected) => panic!("the shell has ended: {}", read.join("\n")),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ids and times become words that are the same for all of them.
fn normal(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-:.+".contains(c);
    let mut normal = String::new();
    for piece in text.split_inclusive(|c| !is_part(c)) {
        let word = piece.trim_end_matches(|c| !is_part(c));
        let known = match word {
            word if word.len() == 36 && Uuid::try_parse(word).is_ok() => "<id>",
            word if DateTime::parse_from_rfc3339(word).is_ok() => "<time>",
            word => word,
        };
        normal += known;
        normal += &piece[word.len()..];
    }
    normal
}

/// Whether a text is the expected one, in which … stands for anything.
fn is_text(expected: &str, actual: &str) -> bool {
    let (expected, actual) = (normal(expected), normal(actual));
    let mut parts: VecDeque<&str> = expected.split(ANYTHING).collect();
    let first = parts.pop_front().unwrap_or_default();
    let Some(mut rest) = actual.strip_prefix(first) else { return false };
    let Some(last) = parts.pop_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Whether lines are the expected ones: a line of … stands for any number of them. Empty lines do not count.
fn are_lines(expected: &[&str], actual: &[&str]) -> bool {
    match (expected, actual) {
        ([], []) => true,
        ([ANYTHING, more @ ..], _) => (0..=actual.len()).any(|skipped| are_lines(more, &actual[skipped..])),
        ([one, more @ ..], [first, rest @ ..]) => is_text(one, first) && are_lines(more, rest),
        _ => false,
    }
}

/// Whether a value is the expected one: an object or a list that ends with … may have more.
fn is_value(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::String(expected), _) if expected == ANYTHING => true,
        (Value::String(expected), Value::String(actual)) => is_text(expected, actual),
        (Value::Object(expected), Value::Object(actual)) => {
            let is_whole = !expected.contains_key(ANYTHING);
            let mut named = expected.iter().filter(|(name, _)| *name != ANYTHING);
            named.all(|(name, value)| actual.get(name).is_some_and(|actual| is_value(value, actual)))
                && (!is_whole || expected.len() == actual.len())
        }
        (Value::Array(expected), Value::Array(actual)) => {
            let (expected, is_whole) = match expected.split_last() {
                Some((Value::String(last), before)) if last == ANYTHING => (before, false),
                _ => (expected.as_slice(), true),
            };
            (if is_whole { expected.len() == actual.len() } else { expected.len() <= actual.len() })
                && expected.iter().zip(actual).all(|(expected, actual)| is_value(expected, actual))
        }
        (expected, actual) => expected == actual,
    }
}

/// JSON values one after another. What is … becomes a field with that name, a value, or an item of a list.
fn values(text: &str) -> serde_json::Result<Vec<Value>> {
    let (mut json, mut within, mut is_string, mut is_escaped) = (String::new(), Vec::new(), false, false);
    for c in text.chars() {
        let is_name = within.last() == Some(&'{') && !json.trim_end().ends_with(':');
        let is_quote = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_string ^= is_quote;
        match c {
            '{' | '[' if !is_string => within.push(c),
            '}' | ']' if !is_string => drop(within.pop()),
            '…' if !is_string && is_name => json += "\"…\":",
            _ => {}
        }
        match c {
            '…' if !is_string => json += "\"…\"",
            c => json.push(c),
        }
    }
    serde_json::Deserializer::from_str(&json).into_iter().collect()
}

fn is_answer(kind: &str, expected: &str, actual: &str) -> bool {
    if kind == "json" {
        let expected = values(expected).unwrap_or_else(|error| panic!("{error}: {expected}"));
        let Ok(actual) = values(actual) else { return false };
        return expected.len() == actual.len() && expected.iter().zip(&actual).all(|(e, a)| is_value(e, a));
    }
    fn lines(text: &str) -> Vec<&str> {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
    }
    are_lines(&lines(expected), &lines(actual))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_cookbook_is_answered_as_it_says() {
    let recipes = recipes();
    assert!(recipes.len() >= 30, "{}", recipes.len());
    let (up, scratch) = (Up::start(&["--ephemeral"]).await, Scratch::new());
    let address = up.api.url.strip_prefix("http://").expect("an address").to_owned();
    let mut shell = Shell::start(&scratch);
    for Recipe { commands, answer } in recipes {
        let here = commands.replace(ADDRESS, &address);
        let (kind, expected) = answer.unwrap_or_else(|| ("text".to_owned(), String::new()));
        let is_answer = |actual: &str| is_answer(&kind, &expected, &actual.replace(&address, ADDRESS));
        if here.trim_end().ends_with(ENDLESS) {
            shell.run_until(&here, is_answer);
            continue;
        }
        let began = Instant::now();
        let actual = shell.run(&here);
        assert!(is_answer(&actual), "{commands}\n---- is answered with\n{actual}\n---- and not with\n{expected}");
        assert!(began.elapsed() < Duration::from_secs(30), "{commands} takes {:?}", began.elapsed());
    }
}

#[test]
fn an_answer_is_compared_by_what_the_cookbook_says_of_it() {
    for (kind, expected, actual, same) in [
        ("json", r#"{"a": 1, …}"#, r#"{"a":1,"b":2}"#, true),
        ("json", r#"{"a": 1}"#, r#"{"a":1,"b":2}"#, false),
        ("json", r#"{"a": 1, …}"#, r#"{"a":2,"b":2}"#, false),
        ("json", r#"{"a": "x…z", …}"#, r#"{"a":"xyz"}"#, true),
        ("json", r#"{"a": "\"…"}"#, r#"{"a":"\"b"}"#, true),
        ("json", r#"{"a": …}"#, r#"{"a":[1]}"#, true),
        ("json", r#"{"a": …}"#, r#"{"b":[1]}"#, false),
        ("json", "[1, …]", "[1,2,3]", true),
        ("json", "[1]", "[1,2]", false),
        ("json", "{…}\n{…}", "{}{}", true),
        ("json", "{…}", "{}{}", false),
        (
            "json",
            r#"{"at": "2026-11-25T13:34:37.529636Z", "id": "01a212ea-57cd-736a-8295-2e349599844f"}"#,
            r#"{"at":"2030-01-01T00:00:00Z","id":"01900000-57cd-736a-8295-2e349599844f"}"#,
            true,
        ),
        ("json", r#"{"at": "2026-11-25T13:34:37Z"}"#, r#"{"at":"soon"}"#, false),
        ("text", "a\n…\nz", "a\nb\n\nc\nz\n", true),
        ("text", "a\nz", "a\nb\nz", false),
        ("text", "a…c", "abcd", false),
        ("text", "", "", true),
        ("text", "", "something", false),
    ] {
        assert_eq!(is_answer(kind, expected, actual), same, "{expected} {actual}");
    }
}
