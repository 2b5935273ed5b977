//! The writer of the metrics: one family after the other, each with its samples.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

/// A label. The library escapes the value.
pub type Label<'a> = (&'static str, &'a str);

/// Writes metric families.
pub struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    /// A page that uses `encoder`.
    pub fn new(encoder: DescriptorEncoder<'_>) -> Page<'_> {
        Page { encoder }
    }

    /// A gauge with a sample per set of labels.
    pub fn gauge<L: EncodeLabelSet, V>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result
    where
        ConstGauge<V>: EncodeMetric,
    {
        let samples = samples.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(name, help, samples)
    }

    /// A counter with a sample per set of labels. The library adds `_total` to the name of
    /// each sample.
    pub fn counter<L: EncodeLabelSet, V>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result
    where
        ConstCounter<V>: EncodeMetric,
    {
        let samples = samples.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(name, help, samples)
    }

    /// A histogram in seconds with a sample per set of labels.
    pub fn histogram<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, Histogram)>,
    ) -> fmt::Result {
        self.family(name, help, samples.into_iter())
    }

    /// A gauge without labels.
    pub fn gauge_alone<V>(&mut self, name: &str, help: &str, value: V) -> fmt::Result
    where
        ConstGauge<V>: EncodeMetric,
    {
        self.alone(name, help, &ConstGauge::new(value))
    }

    /// A counter without labels.
    pub fn counter_alone(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.alone(name, help, &ConstCounter::new(value))
    }

    fn alone(&mut self, name: &str, help: &str, metric: &dyn EncodeMetric) -> fmt::Result {
        metric.encode(self.encoder.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn family<L: EncodeLabelSet, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl Iterator<Item = (L, M)>,
    ) -> fmt::Result {
        let mut samples = samples.peekable();
        // A family without samples is omitted with its description.
        let Some((_, first)) = samples.peek() else { return Ok(()) };
        let mut family = self.encoder.encode_descriptor(name, help, None, first.metric_type())?;
        for (labels, metric) in samples {
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
