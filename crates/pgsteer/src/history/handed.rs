//! The history in a file, as an upgrade hands it over: JSON.

use std::collections::BTreeMap;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{History, Past};
use pgsteer_core::snapshot::Snapshot;

/// The largest file that is read. The history has at most 8 MB, which take a third more as text.
const BYTES_MAX: u64 = 32 << 20;

impl History {
    /// Writes the history.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: impl Write) -> serde_json::Result<()> {
        let mut file = BufWriter::new(file);
        serde_json::to_writer(&mut file, &*self.read())?;
        file.flush().map_err(serde_json::Error::io)
    }

    /// Continues the history in `file`.
    ///
    /// # Errors
    /// The file cannot be read, or is no history.
    pub fn resume(&self, mut file: impl Read + Seek) -> serde_json::Result<()> {
        file.rewind().map_err(serde_json::Error::io)?;
        let mut past: Past = serde_json::from_reader(BufReader::new(file.take(BYTES_MAX)))?;
        past.series.remove_malformed();
        past.events.resume();
        past.changes.carry();
        *self.read() = past;
        Ok(())
    }

    /// Leaves out the events of `snapshot`: those of the start of a process that continues the history.
    pub fn skip_events(&self, snapshot: &Snapshot) {
        self.read().events.skip(snapshot);
    }
}

/// A map as a list of pairs, because a key of JSON is a text.
pub mod pairs {
    use super::*;

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Numbers as base64 of their bytes: JSON has no NaN, and this is faster.
pub mod numbers {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;

    use super::*;

    pub fn serialize<S: Serializer>(numbers: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[f32]>, D::Error> {
        let bytes =
            STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        let (numbers, _) = bytes.as_chunks();
        Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use pgsteer_core::time::Moment;

    use super::*;
    use crate::http::sample;
    use crate::stats::Stats;

    #[test]
    fn a_history_goes_on_in_another_process() {
        let (old, new) = (History::default(), History::default());
        *old.read() = sample::past();
        let (snapshot, stats) = (sample::snapshot(), Stats::default());
        old.note_snapshot(&snapshot, &stats, Moment::from_millis(3_600_000));
        for second in 3_600..3_725 {
            old.note_second(&snapshot, &stats, Moment::from_millis(second * 1_000));
        }
        let mut file = Cursor::new(Vec::new());
        old.write(&mut file).unwrap();
        new.resume(file).unwrap();
        new.skip_events(&snapshot);
        assert_eq!(format!("{:?}", new.read().series), format!("{:?}", old.read().series));
        let changes = |history: &History| history.read().changes.all().cloned().collect::<Vec<_>>();
        assert_eq!(changes(&new), changes(&old));
        assert!(!changes(&new).is_empty());
        let events = |history: &History| history.read().events.since(Moment::START).count();
        assert_eq!(events(&new), events(&old));
        // The events of its own start are not told twice.
        new.note_snapshot(&snapshot, &stats, Moment::from_millis(3_726_000));
        assert_eq!(events(&new), events(&old));
        let now = Moment::from_millis(3_727_000);
        let (new, old) = (new.read(), old.read());
        assert_eq!(new.segments.since(Moment::START, now), old.segments.since(Moment::START, now));
    }

    #[test]
    fn what_is_no_history_changes_nothing() {
        let history = History::default();
        *history.read() = sample::past();
        let before = history.read().changes.all().count();
        for text in ["", "{}", "[]", "{\"series\": 1}"] {
            assert!(history.resume(Cursor::new(text)).is_err(), "{text}");
        }
        assert_eq!(history.read().changes.all().count(), before);
    }
}
