//! The policy, second by second.
