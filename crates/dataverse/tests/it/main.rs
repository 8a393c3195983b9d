//! The crate against the emulator, and against a small scripted service (`fake`) for answers that can
//! be provoked one by one.

#[cfg(test)]
mod emulator;
#[cfg(test)]
mod examine;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod load;
#[cfg(test)]
mod provision;
#[cfg(test)]
mod reads;
#[cfg(test)]
mod session;
#[cfg(test)]
mod support;
#[cfg(test)]
mod users;
#[cfg(test)]
mod verify;
