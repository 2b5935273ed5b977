//! Tables that leave out whole columns where the terminal is narrow: no number is cut.

use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::look::Look;
use super::text::{cut_name, width};
use crate::status::human::printable;
use crate::status::table::Paint;

/// The cells before each row, for the mark of the selected one.
const GUTTER: usize = 1;

/// The blanks between columns, where they fit and where they do not.
const GAPS: [usize; 2] = [2, 1];

/// A column.
#[derive(Debug)]
pub struct Column {
    title: String,
    /// The column with the highest number is left out first. Those with 0 are always shown.
    priority: usize,
    /// Numbers are right-aligned and never cut.
    is_number: bool,
    width_min: usize,
    width_max: usize,
    cells: Vec<(String, Paint)>,
}

impl Column {
    /// A column of names, each cut to `width_max` cells.
    pub fn names(title: &str, priority: usize, width_max: usize) -> Column {
        Column {
            title: printable(title),
            priority,
            is_number: false,
            width_min: 1,
            width_max,
            cells: Vec::new(),
        }
    }

    /// A column of numbers that is at least `width_min` wide, so that it seldom changes its width.
    pub fn numbers(title: &str, priority: usize, width_min: usize) -> Column {
        Column { is_number: true, width_min, ..Column::names(title, priority, usize::MAX) }
    }

    /// Adds the cell of the next row.
    pub fn push(&mut self, text: &str, paint: Paint) {
        self.cells.push((printable(text), paint));
    }

    fn width(&self) -> usize {
        let texts = self.cells.iter().map(|(text, _)| text).chain([&self.title]);
        texts
            .map(|text| width(text))
            .max()
            .unwrap_or(0)
            .clamp(self.width_min, self.width_max.max(1))
    }

    fn cell(&self, text: &str, cells: usize, look: Look) -> String {
        let text = cut_name(text, cells, look.cut_mark());
        let padding = " ".repeat(cells.saturating_sub(width(&text)));
        match self.is_number {
            true => format!("{padding}{text}"),
            false => format!("{text}{padding}"),
        }
    }
}

/// The columns that fit into a width.
#[derive(Debug)]
pub struct Fitted {
    columns: Vec<(Column, usize)>,
    gap: usize,
}

impl Fitted {
    /// The `columns` that fit into `cells`, the most important ones first.
    pub fn new(columns: Vec<Column>, cells: usize) -> Fitted {
        let room = cells.saturating_sub(GUTTER);
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by_key(|number| columns.get(*number).map(|column| column.priority));
        let mut best = (Vec::new(), GAPS[0]);
        for gap in GAPS {
            let shown = fitting(&columns, &order, room, gap);
            if shown.len() > best.0.len() {
                best = (shown, gap);
            }
        }
        let (shown, gap) = best;
        let columns = columns.into_iter().enumerate();
        let columns = columns.filter(|(number, _)| shown.contains(number)).map(|(_, column)| {
            // The width is cut only for a column that is always shown.
            let width = column.width().min(room);
            (column, width)
        });
        Fitted { columns: columns.collect(), gap }
    }

    /// The headings.
    pub fn head(&self, look: Look) -> Line<'static> {
        let titles = self
            .columns
            .iter()
            .map(|(column, width)| (column.cell(&column.title, *width, look), Paint::Head));
        self.line(" ", titles.collect(), look)
    }

    /// A row.
    pub fn row(&self, number: usize, is_selected: bool, look: Look) -> Line<'static> {
        let cells = self.columns.iter().map(|(column, width)| {
            let (text, paint) =
                column.cells.get(number).cloned().unwrap_or((String::new(), Paint::None));
            (column.cell(&text, *width, look), paint)
        });
        let mark = if is_selected { ">" } else { " " };
        let line = self.line(mark, cells.collect(), look);
        match is_selected {
            true => line.patch_style(Modifier::REVERSED),
            false => line,
        }
    }

    fn line(&self, mark: &'static str, cells: Vec<(String, Paint)>, look: Look) -> Line<'static> {
        let mut spans = vec![Span::raw(mark)];
        for (number, (text, paint)) in cells.into_iter().enumerate() {
            if number > 0 {
                spans.push(Span::raw(" ".repeat(self.gap)));
            }
            spans.push(Span::styled(text, look.style(paint)));
        }
        Line::from(spans)
    }
}

/// The numbers of the columns that fit, in the order of their priorities.
fn fitting(columns: &[Column], order: &[usize], room: usize, gap: usize) -> Vec<usize> {
    let mut shown = Vec::new();
    let mut used = 0;
    for number in order {
        let Some(column) = columns.get(*number) else { continue };
        let needed = column.width() + if shown.is_empty() { 0 } else { gap };
        if used + needed > room && column.priority > 0 {
            break;
        }
        used += needed;
        shown.push(*number);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::table::Ink;

    const PLAIN: Look = Look { ink: Ink::Plain, is_unicode: false };

    fn columns() -> Vec<Column> {
        let mut name = Column::names("NAME", 0, 8);
        let mut big = Column::numbers("BYTES", 2, 5);
        let mut gate = Column::names("GATE", 1, 9);
        name.push("pg1.example", Paint::None);
        big.push("1234567", Paint::None);
        gate.push("open", Paint::Good);
        vec![name, big, gate]
    }

    fn rows(cells: usize) -> [String; 2] {
        let fitted = Fitted::new(columns(), cells);
        [fitted.head(PLAIN), fitted.row(0, true, PLAIN)].map(|line| line.to_string())
    }

    #[test]
    fn a_narrow_table_leaves_out_whole_columns() {
        assert_eq!(rows(24), [" NAME        BYTES  GATE", ">pg1.e...  1234567  open"]);
        assert_eq!(rows(22), [" NAME       BYTES GATE", ">pg1.e... 1234567 open"]);
        assert_eq!(rows(21), [" NAME      GATE", ">pg1.e...  open"]);
        assert_eq!(rows(5), [" NAME", ">p..."]);
    }

    #[test]
    fn a_control_character_in_a_cell_is_shown_as_its_code() {
        let mut name = Column::names("NAME", 0, 20);
        name.push("\u{1b}[31m", Paint::None);
        let line = Fitted::new(vec![name], 40).row(0, false, PLAIN).to_string();
        assert_eq!(line.trim(), "\\u{1b}[31m");
    }
}
