mod proxy;
mod stats;
fn main() {}
