//! Columns of text, aligned. Widths count characters without their colours.

use super::{Paint, Tone};

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: None }
    }

    pub(crate) fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Some(tone) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<Cell>>,
}

const GAP: &str = "   ";

impl Table {
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        Self { columns: columns.iter().map(|(name, align)| ((*name).to_owned(), *align)).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The lines of the table, each after `indent`, without a line break at the end.
    pub(crate) fn render(&self, indent: &str, paint: Paint) -> String {
        let mut lines = Vec::with_capacity(self.rows.len() + 1);
        if self.columns.iter().any(|(name, _)| !name.is_empty()) {
            let heads = self.columns.iter().map(|(name, _)| Cell::toned(Tone::Faint, name));
            lines.push(self.line(&heads.collect::<Vec<_>>(), indent, paint));
        }
        lines.extend(self.rows.iter().map(|row| self.line(row, indent, paint)));
        lines.join("\n")
    }

    fn line(&self, cells: &[Cell], indent: &str, paint: Paint) -> String {
        let mut line = indent.to_owned();
        for (at, cell) in cells.iter().enumerate() {
            let missing = " ".repeat(self.width(at).saturating_sub(width(&cell.text)));
            let text = cell.tone.map_or(cell.text.clone(), |tone| paint.paint(tone, &cell.text));
            let is_last = at + 1 == cells.len();
            match self.columns.get(at).map(|(_, align)| *align) {
                Some(Align::Right) => line.extend([missing, text]),
                _ if is_last => line.push_str(&text),
                _ => line.extend([text, missing]),
            }
            if !is_last {
                line.push_str(GAP);
            }
        }
        line.trim_end().to_owned()
    }

    fn width(&self, column: usize) -> usize {
        let head = self.columns.get(column).map_or(0, |(name, _)| width(name));
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(&cell.text));
        cells.fold(head, usize::max)
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_under_each_other() {
        let mut table = Table::new(&[("load", Align::Left), ("created", Align::Right), ("", Align::Left)]);
        table.row(vec![Cell::new("cases"), Cell::new("30,659"), Cell::new("")]);
        table.row(vec![Cell::new("offices"), Cell::new("18"), Cell::new("new")]);
        let expected = "  load      created\n  cases      30,659\n  offices        18   new";
        assert_eq!(table.render("  ", Paint::off()), expected);
    }
}
