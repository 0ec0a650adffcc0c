//! The Postman collection and environment, generated from the gateway's OpenAPI document.
//!
//! In reading order: `document` (what the document says of each operation), `tour` (the requests, in the order in which they tell
//! a story), `script` (what each request checks), `collection` (Postman's format). An operation that the tour leaves out gets
//! a plain request, so that nothing is missing from the collection.

mod collection;
mod document;
mod script;
mod tour;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use taskmaster_openapi::documents;

use collection::{Auth, Body, Collection, Entry, Environment, Event, Folder, Item, Pair, Request, Saved, Url};
use document::{Document, Operation};
use tour::{Chapter, Sent, Step};

/// Identifies the collection to Postman: the same in every generation, so that importing again replaces it.
const COLLECTION_ID: &str = "7a5c6d1e-0b52-4c0e-9a43-3f1d6e2b8c01";
/// As [`COLLECTION_ID`], of the environment.
const ENVIRONMENT_ID: &str = "7a5c6d1e-0b52-4c0e-9a43-3f1d6e2b8c02";
/// Where `up` serves its API: what the document's examples point at, and the environment's `base_url` at first.
const BASE_URL: &str = "http://127.0.0.1:8081";
/// Postman's variable for [`BASE_URL`].
const BASE_URL_VARIABLE: &str = "{{base_url}}";
/// The chapter of operations that the tour leaves out.
const LEFT_OUT: &str = "More";

/// The generated files: the path of each from the root of the project, and its text.
///
/// # Errors
/// When a file cannot be rendered.
pub fn files() -> serde_json::Result<Vec<(PathBuf, String)>> {
    let document = gateway()?;
    Ok(vec![
        ("postman/taskmaster.postman_collection.json".into(), text(&collection(&document))?),
        ("postman/taskmaster.postman_environment.json".into(), text(&environment())?),
    ])
}

fn gateway() -> serde_json::Result<Document> {
    let document = documents::all().into_iter().find(|(name, _)| *name == "gateway.json").map(|(_, document)| document);
    Ok(Document::read(&serde_json::to_value(document)?))
}

fn text(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}

fn environment() -> Environment {
    let values = [
        ("base_url", BASE_URL, "default"),
        ("api_key", "", "secret"),
        // The event stream never ends by itself: a run of the whole collection leaves it out unless this is "true".
        ("follow_events", "false", "default"),
    ];
    Environment::new(ENVIRONMENT_ID, "TaskMaster (local)", &values)
}

fn collection(document: &Document) -> Collection {
    let mut shown = BTreeSet::new();
    let mut resources: Vec<(String, Vec<Folder>)> = Vec::new();
    for chapter in chapters(document) {
        let operation = |step: &Step| document.operation(&step.operation);
        let Some(tag) = chapter.steps.first().and_then(operation).map(|first| first.tag.clone()) else { continue };
        let steps = chapter.steps.iter().filter_map(|step| Some((operation(step)?, step)));
        let items = steps.map(|(operation, step)| item(operation, step, &mut shown));
        let item = items.map(|item| Entry::Item(Box::new(item))).collect();
        let folder = Folder { name: chapter.name.into(), description: String::new(), item };
        match resources.iter_mut().find(|(known, _)| *known == tag) {
            Some((_, folders)) => folders.push(folder),
            None => resources.push((tag, vec![folder])),
        }
    }
    let folders = resources.into_iter().map(|(tag, chapters)| resource(document, &tag, chapters)).collect();
    Collection::new(COLLECTION_ID, &document.title, &description(document), folders)
        .with_auth(Auth::bearer("{{api_key}}"))
        .with_event(Event::test(script::every_answer()))
}

/// The folder of a resource: its chapters, or what is in the only one.
fn resource(document: &Document, tag: &str, mut chapters: Vec<Folder>) -> Folder {
    let item = match chapters.len() {
        1 => chapters.pop().map(|only| only.item).unwrap_or_default(),
        _ => chapters.into_iter().map(Entry::Folder).collect(),
    };
    Folder { name: title(tag), description: document.tags.get(tag).cloned().unwrap_or_default(), item }
}

/// `tasks` as the name of a folder: `Tasks`.
fn title(tag: &str) -> String {
    let mut letters = tag.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The tour, and a plain request for each operation that it leaves out.
fn chapters(document: &Document) -> Vec<Chapter> {
    let mut chapters = tour::chapters();
    for operation in document.operations.values() {
        if chapters.iter().flat_map(|chapter| &chapter.steps).any(|step| step.operation == operation.id) {
            continue;
        }
        let step = Step::new(&operation.id, operation.summary.trim_end_matches('.'));
        let is_of_tag = |chapter: &&mut Chapter| {
            let first = chapter.steps.first().and_then(|step| document.operation(&step.operation));
            chapter.name == LEFT_OUT && first.is_some_and(|first| first.tag == operation.tag)
        };
        match chapters.iter_mut().find(is_of_tag) {
            Some(chapter) => chapter.steps.push(step),
            None => chapters.push(Chapter { name: LEFT_OUT, steps: vec![step] }),
        }
    }
    chapters
}

fn description(document: &Document) -> String {
    format!(
        "{}\n\nGenerated from the gateway's OpenAPI document. Run it in order against a running `taskmaster up`: later requests use \
         the ids that earlier ones got. The event stream is left out of a run unless the variable `follow_events` is `true`.",
        document.description
    )
}

/// A request with its scripts; with an answer as an example, unless one of its operation is shown already.
fn item(operation: &Operation, step: &Step, shown: &mut BTreeSet<String>) -> Item {
    let mut events = Vec::new();
    if operation.streams() && step.answers.iter().all(|status| *status < 400) {
        events.push(Event::before(script::skip_unless_followed()));
    }
    events.push(Event::test(script::of(operation, step)));
    let request = request(operation, step);
    let answer = if shown.contains(&operation.id) { None } else { saved(operation, step, &request) };
    if answer.is_some() {
        shown.insert(operation.id.clone());
    }
    let response = answer.into_iter().collect();
    Item { id: slug(&operation.id, &step.name), name: step.name.clone(), event: events, request, response }
}

/// The answer that the document has as an example, to a request that succeeds.
fn saved(operation: &Operation, step: &Step, request: &Request) -> Option<Saved> {
    let status = step.answers.first().copied().filter(|status| *status < 400)?;
    let answer = operation.answer(status)?;
    let media_type = answer.media_type.as_deref().filter(|media_type| media_type.ends_with("json"))?;
    let body = serde_json::to_string_pretty(answer.example.as_ref()?).ok()?;
    Some(Saved::json(request, reqwest::StatusCode::from_u16(status).ok()?, media_type, body))
}

fn slug(operation: &str, name: &str) -> String {
    let words = name.to_lowercase();
    let words: Vec<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    format!("{operation}-{}", words.join("-"))
}

fn request(operation: &Operation, step: &Step) -> Request {
    let mut header = pairs(operation, "header", &step.headers);
    let body = body(operation, &step.body);
    if let Some((media_type, _)) = &body {
        header.insert(0, Pair::on("Content-Type", media_type, None));
    }
    Request {
        method: operation.method.clone(),
        header,
        url: url(operation, step),
        body: body.map(|(_, text)| Body::raw(text)),
        auth: (!operation.secured || step.without_key).then(Auth::none),
        description: operation.description.clone(),
    }
}

/// The parameters of one place: those that the step sets, and the others switched off, to be found in Postman.
fn pairs(operation: &Operation, place: &str, set: &[(String, String)]) -> Vec<Pair> {
    let documented = operation.parameters.iter().filter(|parameter| parameter.place == place);
    let mut pairs: Vec<Pair> = documented
        .map(|parameter| {
            let description = parameter.description.as_deref();
            match set.iter().find(|(name, _)| *name == parameter.name) {
                Some((name, value)) => Pair::on(name, value, description),
                None => Pair::off(&parameter.name, parameter.example.as_deref().unwrap_or_default(), description),
            }
        })
        .collect();
    let others = set.iter().filter(|(name, _)| !pairs.iter().any(|pair| pair.key == *name));
    let others: Vec<Pair> = others.map(|(name, value)| Pair::on(name, value, None)).collect();
    pairs.extend(others);
    pairs
}

fn url(operation: &Operation, step: &Step) -> Url {
    let variable = operation.parameters.iter().filter(|parameter| parameter.place == "path").map(|parameter| {
        let given = step.path.iter().find(|(name, _)| *name == parameter.name).map(|(_, value)| value.clone());
        // `{id}` is the id of a task; the other names say themselves whose they are.
        let saved = if parameter.name == "id" { "{{task_id}}".into() } else { format!("{{{{{}}}}}", parameter.name) };
        Pair::on(&parameter.name, &given.unwrap_or(saved), parameter.description.as_deref())
    });
    let path = operation.path.trim_start_matches('/').split('/').map(|part| match part.strip_prefix('{') {
        Some(name) => format!(":{}", name.trim_end_matches('}')),
        None => part.to_owned(),
    });
    Url::new(BASE_URL_VARIABLE, path.collect(), pairs(operation, "query", &step.query), variable.collect())
}

/// The body's media type and text.
fn body(operation: &Operation, sent: &Sent) -> Option<(String, String)> {
    let json = |text: String| ("application/json".to_owned(), text);
    match sent {
        Sent::Example => operation.example.as_ref().map(|example| json(pretty(example))),
        Sent::Json(text) => Some(json(text.clone())),
        Sent::Other(media_type, text) => Some((media_type.clone(), text.clone())),
    }
}

/// An example as people write it, with Postman's variable where the document has the address of `up`.
fn pretty(example: &Value) -> String {
    serde_json::to_string_pretty(example).unwrap_or_default().replace(BASE_URL, BASE_URL_VARIABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(document: &Document) -> Vec<Step> {
        chapters(document).into_iter().flat_map(|chapter| chapter.steps).collect()
    }

    /// Every request of these folders, and of those within.
    fn items(entries: Vec<Entry>) -> Vec<Item> {
        let of = |entry| match entry {
            Entry::Folder(folder) => items(folder.item),
            Entry::Item(item) => vec![*item],
        };
        entries.into_iter().flat_map(of).collect()
    }

    #[test]
    fn every_operation_has_a_request_and_the_tour_names_no_other() {
        let document = gateway().unwrap();
        let named: BTreeSet<String> = steps(&document).into_iter().map(|step| step.operation).collect();
        assert_eq!(named, document.operations.into_keys().collect());
    }

    #[test]
    fn every_expected_answer_is_documented() {
        let document = gateway().unwrap();
        for step in tour::chapters().into_iter().flat_map(|chapter| chapter.steps) {
            let operation = document.operation(&step.operation).unwrap();
            for status in &step.answers {
                assert!(operation.answer(*status).is_some(), "{}: {status} is not documented", step.name);
            }
        }
    }

    #[test]
    fn an_operation_that_the_tour_leaves_out_gets_a_plain_request() {
        let mut document = gateway().unwrap();
        let mut new = document.operation("getStats").unwrap().clone();
        new.id = "getWeather".into();
        document.operations.insert(new.id.clone(), new);
        let steps = steps(&document);
        assert_eq!(steps.iter().filter(|step| step.operation == "getWeather").count(), 1);
    }

    #[test]
    fn ids_of_requests_are_unique_and_the_same_in_every_generation() {
        let collection = collection(&gateway().unwrap());
        let items = items(collection.item.into_iter().map(Entry::Folder).collect());
        let ids: Vec<&String> = items.iter().map(|item| &item.id).collect();
        assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len());
        assert_eq!(files().unwrap(), files().unwrap());
    }
}
