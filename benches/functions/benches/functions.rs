//! Times the hot pure functions: `cargo bench -p taskmaster-functions`, and a part of a name to time only some.

use criterion::{Criterion, Throughput};
use taskmaster_functions::{ITEMS, all};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for function in all() {
        // A group of its own says how many items a call is: Criterion then also tells items a second.
        let mut group = criterion.benchmark_group(function.name);
        group.throughput(Throughput::Elements(ITEMS as u64));
        let mut call = (function.prepare)();
        group.bench_function("1000", |bencher| bencher.iter(&mut call));
        group.finish();
    }
    criterion.final_summary();
}
