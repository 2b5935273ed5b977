//! Tables: columns as wide as their widest cell, with or without colours.

use super::human::printable;

/// Two blanks: cells may contain single blanks.
const GAP: &str = "  ";

/// Whether a table has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// No colours, for files, pipes and browsers.
    Plain,
    /// Colours, for a terminal.
    Colour,
}

/// The colour of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// No colour.
    None,
    /// A good state.
    Good,
    /// A state to check.
    Warning,
    /// A bad state.
    Bad,
    /// A heading.
    Head,
}

/// One cell. Its text is safe to print.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    paint: Paint,
}

/// A table under its headings.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Cell {
    /// A cell in colour.
    pub fn painted(text: &str, paint: Paint) -> Cell {
        Cell { text: printable(text), paint }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::painted(text.as_ref(), Paint::None)
    }
}

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(headings: [&str; N]) -> Table {
        let head = headings.map(|heading| Cell::painted(heading, Paint::Head));
        Table { rows: vec![head.into()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// The table as lines.
    pub fn draw(&self, ink: Ink) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        self.rows.iter().map(|row| line(row, &widths, ink)).collect()
    }
}

fn line(row: &[Cell], widths: &[usize], ink: Ink) -> String {
    let mut line = String::new();
    let mut padding = 0;
    for (cell, width) in row.iter().zip(widths) {
        // The padding is written before the next cell with text, so no line ends in blanks.
        if !cell.text.is_empty() {
            line.extend(std::iter::repeat_n(' ', padding));
            line.push_str(&paint(&cell.text, cell.paint, ink));
            padding = 0;
        }
        padding += width - cell.width() + GAP.len();
    }
    line.push('\n');
    line
}

/// `text` in its colour. The text must be safe to print.
pub fn paint(text: &str, paint: Paint, ink: Ink) -> String {
    let code = match (ink, paint) {
        (Ink::Plain, _) | (_, Paint::None) => return text.to_owned(),
        (Ink::Colour, Paint::Good) => "32",
        (Ink::Colour, Paint::Warning) => "33",
        (Ink::Colour, Paint::Bad) => "31",
        (Ink::Colour, Paint::Head) => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_with_any_colour_and_no_line_ends_in_blanks() {
        let mut table = Table::new(["NAME", "GATE", "REASON"]);
        table.row(["zürich".into(), Cell::painted("open", Paint::Good), "".into()]);
        table.row(["b".into(), "".into(), "far\noff".into()]);
        assert_eq!(
            table.draw(Ink::Plain),
            "NAME    GATE  REASON\nzürich  open\nb             far\\noff\n"
        );
        let coloured = table.draw(Ink::Colour);
        let bare = ["\x1b[1m", "\x1b[32m", "\x1b[0m"]
            .iter()
            .fold(coloured.clone(), |text, code| text.replace(code, ""));
        assert_eq!(bare, table.draw(Ink::Plain));
        assert!(coloured.contains("\x1b[32mopen\x1b[0m"));
    }
}
