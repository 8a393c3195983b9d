//! The crate against a small scripted service (`fake`), for answers that can be provoked one by one.

#[cfg(test)]
mod fake;
mod load;
mod provision;
mod reads;
mod session;
#[cfg(test)]
mod support;
