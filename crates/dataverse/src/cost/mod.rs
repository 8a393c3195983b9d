//! What a request will take, learnt from what requests took; and how many rows one should hold.
//!
//! Service time is `S(B) = a + b B` for B rows of a table by a message. [`CostModel`] fits `a` and
//! `b` as answers come, [`ErrorRate`] the share of rows that are refused, and [`batch_rows`] says how
//! many rows a request should hold by both (performance notes, sections 1.3 and 1.4). All of it is
//! pure. Left out: the limits (the budget's) and what a refusal means (the loader's).

mod fit;
mod size;
mod table;

pub use fit::{CostModel, ErrorRate};
pub use size::{ELASTIC_ROWS, batch_rows, prefers_parts};
pub use table::Message;
pub(crate) use table::{Costs, Work};
