//! Tasks that wait, by their time and then by arrival, and how much memory they take.

use std::collections::BTreeMap;
use std::time::Instant;

use taskmaster_openapi::task::Work;
use taskmaster_openapi::worker::SubmittedTask;

/// Where in the queue a task stands: by its time, then by arrival.
pub(super) type Place = (Instant, u64);

/// What a task takes besides its texts, roughly.
const TASK_BYTES: usize = 300;

#[derive(Debug, Default)]
pub(super) struct Queue {
    tasks: BTreeMap<Place, SubmittedTask>,
    arrivals: u64,
    bytes: usize,
}

impl Queue {
    pub fn insert(&mut self, due: Instant, task: SubmittedTask) -> Place {
        let place = (due, self.arrivals);
        self.arrivals += 1;
        self.bytes += bytes_of(&task);
        self.tasks.insert(place, task);
        place
    }

    pub fn remove(&mut self, place: Place) {
        if let Some(task) = self.tasks.remove(&place) {
            self.bytes -= bytes_of(&task);
        }
    }

    pub fn first_due(&self) -> Option<Instant> {
        self.tasks.first_key_value().map(|((due, _), _)| *due)
    }

    pub fn pop_first(&mut self) -> Option<SubmittedTask> {
        let (_, task) = self.tasks.pop_first()?;
        self.bytes -= bytes_of(&task);
        Some(task)
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Roughly what the waiting tasks take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn bytes_of(task: &SubmittedTask) -> usize {
    let texts = match &task.work {
        Work::Command(line) => line.len(),
        Work::Argv(argv) => argv.iter().map(String::len).sum(),
        Work::Http(http) => {
            let headers: usize = http.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            let bodies = [&http.body, &http.body_base64].into_iter().flatten().map(String::len).sum::<usize>();
            http.url.len() + headers + bodies
        }
    };
    TASK_BYTES + texts
}
