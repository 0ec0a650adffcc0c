//! What is generated from the contracts and committed: the OpenAPI documents, the Postman collection, and the page of problems.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use taskmaster_openapi::documents;

use crate::{postman, problems};

/// Which document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    Gateway,
    Coordinator,
    Worker,
}

#[derive(Debug, Args)]
pub struct OpenapiArgs {
    /// The document to print
    #[arg(default_value = "gateway")]
    which: Which,
    /// Write all documents below this directory instead (the root of the project)
    #[arg(long, value_name = "DIRECTORY", num_args = 0..=1, default_missing_value = ".")]
    write: Option<PathBuf>,
}

/// Every generated file: its path from the root of the project, and its text.
///
/// # Errors
/// When a document cannot be rendered.
pub fn files() -> Result<Vec<(PathBuf, String)>, String> {
    let mut files = Vec::new();
    for (name, document) in documents::all() {
        let text = documents::to_json(&document).map_err(|error| error.to_string())?;
        files.push((PathBuf::from("openapi/v1").join(name), text));
    }
    files.extend(postman::files().map_err(|error| error.to_string())?);
    files.push((PathBuf::from("docs/problems.md"), problems::page()));
    Ok(files)
}

/// Prints a document, or writes all.
///
/// # Errors
/// One line: a file cannot be written.
#[allow(clippy::print_stdout, reason = "the document is what the command is for")]
pub fn run(args: &OpenapiArgs) -> Result<(), String> {
    let Some(root) = &args.write else {
        let name = match args.which {
            Which::Gateway => "gateway.json",
            Which::Coordinator => "coordinator.json",
            Which::Worker => "worker.json",
        };
        let document = documents::all().into_iter().find(|(n, _)| *n == name).map(|(_, document)| document);
        let text = document.map(|d| documents::to_json(&d)).transpose().map_err(|error| error.to_string())?;
        print!("{}", text.unwrap_or_default());
        return Ok(());
    };
    for (path, text) in files()? {
        let path = root.join(path);
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(root))?;
            std::fs::write(&path, &text)
        };
        write().map_err(|error: std::io::Error| format!("cannot write {}: {error}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_committed_file_is_the_generated_one() {
        for (path, text) in files().unwrap() {
            let committed =
                std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap_or_default();
            assert!(committed == text, "{} is stale: run `cargo run -- openapi --write`", path.display());
        }
    }
}
