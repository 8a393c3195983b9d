//! The client against small servers on loopback that misbehave in one way each.

mod exchange;
#[cfg(test)]
mod support;
