//! One column's values as bytes in rows, and back: fixed width, booleans and text.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, StringArray, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::DataType;

use crate::SortedError;

/// How a type's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Boolean,
    Text,
    /// Bytes a value.
    Fixed(usize),
}

impl Form {
    fn of(data_type: &DataType) -> Result<Self, SortedError> {
        match data_type {
            DataType::Boolean => Ok(Self::Boolean),
            DataType::Utf8 => Ok(Self::Text),
            _ => data_type
                .primitive_width()
                .map(Self::Fixed)
                .ok_or(SortedError::Misused("a column of a type that states do not hold")),
        }
    }
}

/// A column whose cells are to be written.
pub(crate) struct ColumnCells {
    nulls: Option<NullBuffer>,
    cells: Cells,
}

enum Cells {
    Boolean(BooleanArray),
    Text(StringArray),
    Fixed { width: usize, bytes: Buffer },
}

impl ColumnCells {
    pub(crate) fn new(column: &ArrayRef) -> Result<Self, SortedError> {
        let cells = match Form::of(column.data_type())? {
            Form::Boolean => Cells::Boolean(column.as_boolean().clone()),
            Form::Text => Cells::Text(column.as_string().clone()),
            Form::Fixed(width) => {
                let data = column.to_data();
                let bytes = data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width);
                Cells::Fixed { width, bytes }
            }
        };
        Ok(Self { nulls: column.nulls().cloned(), cells })
    }

    /// Appends the value of a row; `false` if it has none.
    #[inline]
    pub(crate) fn append(&self, row: usize, bytes: &mut Vec<u8>) -> bool {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return false;
        }
        match &self.cells {
            Cells::Boolean(values) => bytes.push(u8::from(values.value(row))),
            Cells::Text(values) => {
                let text = values.value(row).as_bytes();
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                bytes.extend_from_slice(text);
            }
            Cells::Fixed { width, bytes: values } => bytes.extend_from_slice(&values[row * width..(row + 1) * width]),
        }
        true
    }
}

/// A column that cells are read into, or only skipped.
pub(crate) struct ColumnBuilder {
    data_type: DataType,
    form: Form,
    is_wanted: bool,
    is_present: Vec<bool>,
    bytes: Vec<u8>,
    /// Text only: where each value ends.
    ends: Vec<i32>,
}

impl ColumnBuilder {
    pub(crate) fn new(data_type: &DataType, is_wanted: bool, rows: usize) -> Result<Self, SortedError> {
        Ok(Self {
            data_type: data_type.clone(),
            form: Form::of(data_type)?,
            is_wanted,
            is_present: Vec::with_capacity(if is_wanted { rows } else { 0 }),
            bytes: Vec::new(),
            ends: vec![0],
        })
    }

    /// Takes the cell at the beginning of `cells`, if there is one, and returns what comes after it.
    pub(crate) fn take<'a>(&mut self, is_present: bool, cells: &'a [u8]) -> Option<&'a [u8]> {
        let (cell, rest) = match self.form {
            _ if !is_present => (&[] as &[u8], cells),
            Form::Boolean => cells.split_at_checked(1)?,
            Form::Fixed(width) => cells.split_at_checked(width)?,
            Form::Text => {
                let (length, cells) = cells.split_first_chunk::<4>()?;
                cells.split_at_checked(u32::from_le_bytes(*length) as usize)?
            }
        };
        if self.is_wanted {
            self.is_present.push(is_present);
            self.bytes.extend_from_slice(cell);
            match self.form {
                Form::Text => self.ends.push(i32::try_from(self.bytes.len()).ok()?),
                Form::Boolean if !is_present => self.bytes.push(0),
                Form::Fixed(width) if !is_present => self.bytes.resize(self.bytes.len() + width, 0),
                Form::Boolean | Form::Fixed(_) => {}
            }
        }
        Some(rest)
    }

    /// The column; `None` if it was not wanted.
    pub(crate) fn finish(self) -> Result<Option<ArrayRef>, SortedError> {
        if !self.is_wanted {
            return Ok(None);
        }
        let rows = self.is_present.len();
        let nulls = Some(NullBuffer::from(self.is_present)).filter(|nulls| nulls.null_count() > 0);
        let data = ArrayData::builder(self.data_type).len(rows).nulls(nulls).align_buffers(true);
        let data = match self.form {
            Form::Boolean => {
                let bits = BooleanBuffer::collect_bool(rows, |row| self.bytes[row] != 0);
                data.add_buffer(bits.into_inner())
            }
            Form::Fixed(_) => data.add_buffer(Buffer::from_vec(self.bytes)),
            Form::Text => data.add_buffer(Buffer::from_vec(self.ends)).add_buffer(Buffer::from_vec(self.bytes)),
        };
        let data = data.build().map_err(SortedError::arrow("reading values"))?;
        Ok(Some(make_array(data)))
    }
}
