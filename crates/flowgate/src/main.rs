//! The `flowgate` command line.
fn main() {}
