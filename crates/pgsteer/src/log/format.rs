//! The format of the fields of a line: clean, and without line breaks.

use std::fmt::{self, Debug};
use std::io;

use pgsteer_core::text::{clean_to, json_escaped};
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};

/// The maximum length of one field.
const FIELD_CHARS_MAX: usize = 2_000;

/// Writes fields in the format of tracing (`message name=value`), cleaned.
pub struct CleanFields;

impl<'writer> FormatFields<'writer> for CleanFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = CleanVisitor { writer, is_first: true, outcome: Ok(()) };
        fields.record(&mut visitor);
        visitor.outcome
    }
}

struct CleanVisitor<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    outcome: fmt::Result,
}

impl Visit for CleanVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let name = match field.name() {
            "message" => None,
            name => Some(name),
        };
        let separator = if std::mem::take(&mut self.is_first) { "" } else { " " };
        self.outcome = self
            .outcome
            .and_then(|()| self.writer.write_str(separator))
            .and_then(|()| name.map_or(Ok(()), |name| write!(self.writer, "{name}=")))
            .and_then(|()| {
                self.writer.write_str(&clean_to(&format!("{value:?}"), FIELD_CHARS_MAX))
            });
    }
}

/// A writer of JSON lines: it replaces hidden characters by JSON's escapes.
pub struct JsonLines<W>(pub W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for JsonLines<W> {
    type Writer = JsonLine<W::Writer>;

    fn make_writer(&'a self) -> JsonLine<W::Writer> {
        JsonLine(self.0.make_writer())
    }
}

/// The writer of one line, which is written in one call.
pub struct JsonLine<W>(W);

impl<W: io::Write> io::Write for JsonLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.0.write_all(json_escaped(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
