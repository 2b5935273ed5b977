//! Plain tables and short numbers.

/// Returns the rows in columns, below the headings if there are any.
pub fn columns<const N: usize>(headings: &[&str], rows: &[[String; N]]) -> String {
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let all = || {
        let above = (!headings.is_empty()).then_some(headings.as_slice());
        above.into_iter().chain(rows.iter().map(<[String; N]>::as_slice))
    };
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A time as a person writes it: `0.3 s`, `12 s`, `5 min`, `3 h`, `2 d`.
pub fn ago(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// A number of bytes: `512`, `1.2k`, `5.7M`.
pub fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    match UNITS.iter().find(|(unit, _)| count >= *unit) {
        #[allow(clippy::cast_precision_loss)]
        Some((unit, name)) => format!("{:.1}{name}", count as f64 / *unit as f64),
        None => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let times = [0.31, 12.4, 300.0, 10_000.0, 200_000.0];
        assert_eq!(times.map(ago), ["0.3 s", "12 s", "5 min", "3 h", "2 d"]);
        assert_eq!([512, 1_234, 5_678_901].map(bytes), ["512", "1.2k", "5.7M"]);
    }
}
