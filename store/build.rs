//! The migrations are built into the program: it is built again when they change.

#[allow(clippy::print_stdout, reason = "this is how build scripts speak to cargo")]
fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
