//! The layers of a stored bucket, seen as one.
//!
//! The first layer holds all rows a bucket had when it was written whole; each layer above holds what
//! changed later. Of two layers that have a key the upper one counts, and a row that is marked as
//! removed there is gone. A layer is an index and its values, in the same order.

use std::cmp::Ordering;
use std::path::Path;

use flowgate_core::KeyHash;

use crate::index::{Heads, REMOVED};
use crate::manifest::LayerMeta;
use crate::{Index, SortedError};

/// A row of one of the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) layer: u32,
    pub(crate) row: u32,
}

/// All living rows and tombstones of the layers, as one index, and where each comes from.
pub(crate) fn read(dir: &Path, layers: &[LayerMeta]) -> Result<(Index, Vec<Place>), SortedError> {
    let read = |layer: &LayerMeta| Index::read(&dir.join(layer.index()), layer.rows, layer.index_checksum);
    let mut indexes = layers.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let columns: Vec<_> = indexes.iter().map(|index| (index.keys.as_slice(), index.flags.as_slice())).collect();
    let places = join(&columns);
    if indexes.len() == 1 && places.len() == indexes[0].len() {
        return Ok((indexes.remove(0), places));
    }
    let index = places.iter().map(|place| indexes[place.layer as usize].entry(place.row as usize)).collect();
    Ok((index, places))
}

/// The same rows in the same order, without what only some of them are asked for.
pub(crate) fn read_heads(dir: &Path, layers: &[LayerMeta]) -> Result<Heads, SortedError> {
    let read = |layer: &LayerMeta| Heads::read(&dir.join(layer.index()), layer.rows, layer.index_checksum);
    let mut all = layers.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if all.len() == 1 {
        return Ok(all.remove(0));
    }
    let columns: Vec<_> = all.iter().map(|heads| (heads.keys.as_slice(), heads.flags.as_slice())).collect();
    let mut joined = Heads::default();
    for Place { layer, row } in join(&columns) {
        let (heads, row) = (&all[layer as usize], row as usize);
        joined.keys.push(heads.keys[row]);
        joined.row_hashes.push(heads.row_hashes[row]);
        joined.flags.push(heads.flags[row]);
    }
    Ok(joined)
}

/// Keys and flags of each layer, the lowest first, to the rows that count, by key.
fn join(layers: &[(&[KeyHash], &[u8])]) -> Vec<Place> {
    let key = |place: &Place| layers[place.layer as usize].0[place.row as usize];
    let mut joined: Vec<Place> = Vec::new();
    for (layer, (keys, _)) in layers.iter().enumerate() {
        let places = (0..keys.len()).map(|row| Place { layer: layer as u32, row: row as u32 });
        if layer == 0 {
            joined = places.collect();
            continue;
        }
        let mut below = joined.into_iter().peekable();
        let mut next = Vec::with_capacity(below.len() + keys.len());
        for place in places {
            while let Some(lower) = below.next_if(|lower| key(lower) <= key(&place)) {
                if key(&lower).cmp(&key(&place)) == Ordering::Less {
                    next.push(lower);
                }
            }
            next.push(place);
        }
        next.extend(below);
        joined = next;
    }
    if layers.len() > 1 {
        joined.retain(|place| layers[place.layer as usize].1[place.row as usize] & REMOVED == 0);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_layers_replace_add_and_remove() {
        let keys = |numbers: &[u128]| numbers.iter().map(|number| KeyHash(*number)).collect::<Vec<_>>();
        let layers = [keys(&[1, 3, 5]), keys(&[2, 3, 5, 9]), keys(&[3, 9])];
        let flags: [&[u8]; 3] = [&[0, 0, 0], &[0, 0, REMOVED, 0], &[0, REMOVED]];
        let layers: Vec<_> = layers.iter().map(Vec::as_slice).zip(flags).collect();
        let found: Vec<_> = join(&layers).into_iter().map(|place| (place.layer, place.row)).collect();
        assert_eq!(found, [(0, 0), (1, 0), (2, 0)]);
        assert_eq!(join(&[]), []);
    }
}
