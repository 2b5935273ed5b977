//! Bars: pgsteer's target figures, beside what was measured, each with the result in words.

use super::table::Table;

/// The bars of one benchmark.
#[derive(Debug)]
pub struct Bars {
    table: Table,
    missed: usize,
}

impl Bars {
    pub fn new() -> Self {
        Self { table: Table::new(&["figure", "bar", "pgsteer", ""]), missed: 0 }
    }

    /// Adds one figure. A figure that was not measured has missed its bar.
    pub fn add(&mut self, figure: &str, bar: &str, measured: Option<(String, bool)>) {
        let (measured, met) = measured.unwrap_or(("not measured".to_owned(), false));
        self.missed += usize::from(!met);
        let verdict = if met { "met" } else { "**NOT met**" };
        self.table.row(vec![figure.into(), bar.into(), measured, verdict.into()]);
    }

    pub fn text(&self) -> String {
        self.table.text()
    }
}
