//! `taskmaster keys`: API keys without a gateway, for the first one above all.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use taskmaster_openapi::key::{IssuedKey, Key, KeyList, Scope};
use taskmaster_openapi::limits;
use taskmaster_store::keys::{Expiry, KeyId, KeyToCreate, KeyToken, Rotation, wrong_name};
use taskmaster_store::{Store, StoreError};

use crate::cli::StoreArgs;

/// Keys that are read from the database at once.
const PAGE: i64 = limits::PAGE_SIZE_MAX;

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key, and print its token, which is not kept and cannot be shown again
    Create(CreateArgs),
    /// List the keys, newest first, revoked and expired ones included
    List(ListArgs),
    /// Give a key a new secret, and print its token. The old one goes on working for a while
    Rotate(RotateArgs),
    /// Revoke a key for good; gateways refuse it within 5 s
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Whose key it is, or what for
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: String,
    /// What it allows, separated by commas: tasks:read, tasks:write, commands:run (besides tasks:write: tasks that run commands),
    /// workers, webhooks:write, admin (everything)
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true)]
    scopes: Vec<Scope>,
    /// Expires after so many seconds; never when left out
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..=limits::KEY_SECONDS_MAX))]
    expires_in_seconds: Option<i64>,
    /// Print the key and its token as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
struct RotateArgs {
    /// The key's id: the middle part of its token
    #[arg(value_parser = id)]
    id: KeyId,
    /// The old secret goes on working for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = limits::KEY_OVERLAP_SECONDS_DEFAULT,
        value_parser = clap::value_parser!(i64).range(0..=limits::KEY_OVERLAP_SECONDS_MAX))]
    overlap_seconds: i64,
    /// Print the key and its token as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The key's id: the middle part of its token
    #[arg(value_parser = id)]
    id: KeyId,
    /// Print the key as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

fn name(text: &str) -> Result<String, String> {
    wrong_name(text).map_or_else(|| Ok(text.to_owned()), Err)
}

fn id(text: &str) -> Result<KeyId, String> {
    KeyId::parse(text).ok_or_else(|| "an id has 12 letters and digits; `taskmaster keys list` shows it".into())
}

/// Does what the command line says.
///
/// # Errors
/// One line: the database cannot be reached, or has no such key.
pub async fn run(args: KeysArgs) -> Result<(), String> {
    match args.command {
        KeysCommand::Create(args) => create(args).await,
        KeysCommand::List(args) => list(args).await,
        KeysCommand::Rotate(args) => rotate(args).await,
        KeysCommand::Revoke(args) => revoke(args).await,
    }
}

fn open(args: &StoreArgs) -> Result<Store, String> {
    Ok(Store::new(args.connect_options()?, &args.pool))
}

fn failed(error: StoreError) -> String {
    error.to_string()
}

async fn create(args: CreateArgs) -> Result<(), String> {
    let store = open(&args.store)?;
    let expiry = match args.expires_in_seconds {
        Some(seconds) => Expiry::After(Duration::from_secs(seconds.unsigned_abs())),
        None => Expiry::Never,
    };
    let mut scopes: Vec<Scope> = Vec::new();
    for scope in args.scopes {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    let token = KeyToken::random(KeyId::random());
    let made = store.create_key(&KeyToCreate { name: args.name, scopes, expiry }, &token).await.map_err(failed)?;
    let key = made.ok_or("the key would have expired already")?;
    show_issued(IssuedKey { key, token: token.expose() }, args.json)
}

async fn list(args: ListArgs) -> Result<(), String> {
    let store = open(&args.store)?;
    let mut keys: Vec<Key> = Vec::new();
    loop {
        let after = keys.last().and_then(|key| KeyId::parse(&key.id));
        let page = store.keys(after, PAGE).await.map_err(failed)?;
        let was_last = (page.len() as i64) < PAGE;
        keys.extend(page);
        if was_last {
            break;
        }
    }
    match args.json {
        true => print_json(&KeyList { keys, next_page_token: String::new() }),
        false => {
            print(&table(&keys));
            Ok(())
        }
    }
}

async fn rotate(args: RotateArgs) -> Result<(), String> {
    let store = open(&args.store)?;
    let token = KeyToken::random(args.id);
    let overlap = Duration::from_secs(args.overlap_seconds.unsigned_abs());
    match store.rotate_key(&token, overlap).await.map_err(failed)? {
        Rotation::Rotated(key) => show_issued(IssuedKey { key, token: token.expose() }, args.json),
        Rotation::NotActive => Err(format!("the key {} was revoked, or has expired: make a new one", args.id)),
        Rotation::NotFound => Err(no_key(args.id)),
    }
}

async fn revoke(args: RevokeArgs) -> Result<(), String> {
    let store = open(&args.store)?;
    if !store.revoke_key(args.id).await.map_err(failed)? {
        return Err(no_key(args.id));
    }
    let key = store.key(args.id).await.map_err(failed)?.ok_or_else(|| no_key(args.id))?;
    match args.json {
        true => print_json(&key),
        false => {
            print(&format!("revoked {} ({})", key.id, key.name));
            Ok(())
        }
    }
}

fn no_key(id: KeyId) -> String {
    format!("there is no key {id}; `taskmaster keys list` shows those that there are")
}

/// The token alone on standard output, so that it can be caught in a variable; what people want to know beside it.
#[allow(clippy::print_stderr, reason = "for the user of the command, logs or not")]
fn show_issued(issued: IssuedKey, json: bool) -> Result<(), String> {
    if json {
        return print_json(&issued);
    }
    let expires = issued.key.expires_at.map_or("never".into(), |at| at.to_rfc3339());
    eprintln!(
        "Key {} ({}): {}; expires: {expires}. This token is not kept, and cannot be shown again:",
        issued.key.id,
        issued.key.name,
        scopes(&issued.key)
    );
    print(&issued.token);
    Ok(())
}

fn scopes(key: &Key) -> String {
    key.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",")
}

fn table(keys: &[Key]) -> String {
    let heading = ["ID", "STATUS", "CREATED", "EXPIRES", "LAST USED", "SCOPES", "NAME"].map(str::to_owned);
    let time = |at: Option<chrono::DateTime<chrono::Utc>>| {
        at.map_or("-".into(), |at| at.format("%Y-%m-%d %H:%M:%SZ").to_string())
    };
    let row = |key: &Key| {
        let (created, expires, used) = (time(Some(key.created_at)), time(key.expires_at), time(key.last_used_at));
        [key.id.clone(), key.status.as_str().into(), created, expires, used, scopes(key), key.name.clone()]
    };
    let rows: Vec<[String; 7]> = std::iter::once(heading).chain(keys.iter().map(row)).collect();
    let widths: [usize; 7] =
        std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or_default());
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn print_json(value: &impl Serialize) -> Result<(), String> {
    print(&serde_json::to_string_pretty(value).map_err(|error| error.to_string())?);
    Ok(())
}

#[allow(clippy::print_stdout, reason = "what the command is for")]
fn print(text: &str) {
    println!("{text}");
}
