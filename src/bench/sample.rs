//! Some of the tasks that were created, any of them as likely as any other.

use rand::Rng;
use uuid::Uuid;

/// Tasks whose times are looked at.
const KEPT_MAX: usize = 10_000;

/// A sample of fixed size of any number of tasks (a reservoir: Vitter's algorithm R).
#[derive(Debug, Default)]
pub(super) struct Sample {
    kept: Vec<Uuid>,
    seen: usize,
}

impl Sample {
    pub fn offer(&mut self, ids: impl IntoIterator<Item = Uuid>) {
        let mut random = rand::rng();
        for id in ids {
            self.seen += 1;
            if self.kept.len() < KEPT_MAX {
                self.kept.push(id);
            } else if let Some(kept) = self.kept.get_mut(random.random_range(0..self.seen)) {
                *kept = id;
            }
        }
    }

    /// The sample.
    pub fn take(&mut self) -> Vec<Uuid> {
        std::mem::take(&mut self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_all_of_few_and_a_fair_part_of_many() {
        let mut sample = Sample::default();
        sample.offer((0..100).map(Uuid::from_u128));
        assert_eq!(sample.kept, (0..100).map(Uuid::from_u128).collect::<Vec<_>>());
        sample.offer((100..100_000).map(Uuid::from_u128));
        let kept = sample.take();
        let late = kept.iter().filter(|id| id.as_u128() >= 50_000).count();
        assert_eq!(kept.len(), KEPT_MAX);
        // Half of them are expected, with a standard deviation of under 50.
        assert!((4_600..5_400).contains(&late), "{late}");
    }
}
