//! Contents of file and image columns, and transfers under way.
//!
//! Promise: contents follow the transaction that stores them, and are in the log; transfers are
//! bounded in number and size, the oldest giving way. Left out: transfers surviving a restart.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use crate::schema::{Ordinal, TableId};

/// Transfers at once.
const TRANSFERS_MAX: usize = 64;
/// Bytes that wait in unfinished uploads.
const PENDING_BYTES_MAX: usize = 1 << 30;

/// The column of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) table: TableId,
    pub(crate) row: Uuid,
    pub(crate) column: Ordinal,
}

#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) place: Place,
    pub(crate) name: String,
    /// Blocks by id, put in order when they are committed.
    pub(crate) blocks: BTreeMap<String, Vec<u8>>,
    /// Bytes sent in order, chunk by chunk.
    pub(crate) chunks: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) enum Transfer {
    Upload(Upload),
    Download(Uuid),
}

/// Transfers by token.
#[derive(Default)]
pub(crate) struct Transfers {
    by_token: HashMap<Uuid, Transfer>,
    order: VecDeque<Uuid>,
}

impl Upload {
    fn bytes(&self) -> usize {
        self.chunks.len() + self.blocks.values().map(Vec::len).sum::<usize>()
    }
}

impl Transfers {
    pub(crate) fn begin(&mut self, token: Uuid, transfer: Transfer) {
        while self.order.len() >= TRANSFERS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_token.remove(&oldest);
            }
        }
        self.order.push_back(token);
        self.by_token.insert(token, transfer);
    }

    /// Whether so many more bytes may wait.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let pending: usize = self
            .by_token
            .values()
            .map(|transfer| match transfer {
                Transfer::Upload(upload) => upload.bytes(),
                Transfer::Download(_) => 0,
            })
            .sum();
        pending.saturating_add(bytes) <= PENDING_BYTES_MAX
    }

    pub(crate) fn upload(&mut self, token: &Uuid) -> Option<&mut Upload> {
        match self.by_token.get_mut(token)? {
            Transfer::Upload(upload) => Some(upload),
            Transfer::Download(_) => None,
        }
    }

    pub(crate) fn download(&self, token: &Uuid) -> Option<Uuid> {
        match self.by_token.get(token)? {
            Transfer::Download(file) => Some(*file),
            Transfer::Upload(_) => None,
        }
    }

    pub(crate) fn end(&mut self, token: &Uuid) {
        self.by_token.remove(token);
        self.order.retain(|known| known != token);
    }
}

/// Contents by file id. Copies share them.
pub(crate) type Contents = HashMap<Uuid, Arc<[u8]>>;
