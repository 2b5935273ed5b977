//! Pairs: the same run through pgsteer and through HAProxy, one right after the other, so that
//! other load on the machine affects both.

use std::time::Duration;

use anyhow::Result;

use super::shape::{self, Shape};
use super::{Bench, Contender};
use crate::table::median;
use crate::usage::cpu;

/// The figures of one run through one proxy.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub tps: f64,
    pub latency_ms: f64,
    /// CPU of the proxy, in microseconds per transaction.
    pub cpu_us: f64,
}

/// One run through each proxy.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    pub pgsteer: Run,
    pub haproxy: Run,
}

/// All pairs of one shape.
#[derive(Debug)]
pub struct Pairs {
    pub shape: &'static str,
    pub pairs: Vec<Pair>,
    /// Transactions per second without a proxy.
    pub direct_tps: f64,
}

/// A figure over all pairs.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// Measures one shape. Every other pair runs in the opposite order, so that neither proxy is always
/// first.
pub fn measure(bench: &Bench<'_>, shape: &Shape, count: usize, time: Duration) -> Result<Pairs> {
    let mut pairs = Vec::new();
    for number in 0..count {
        let turned = number % 2 == 1;
        let first = if turned { bench.haproxy } else { bench.pgsteer };
        let second = if turned { bench.pgsteer } else { bench.haproxy };
        let first = one(bench, first, shape, time)?;
        let second = one(bench, second, shape, time)?;
        let (pgsteer, haproxy) = if turned { (second, first) } else { (first, second) };
        let pair = Pair { pgsteer, haproxy };
        println!(
            "{}: CPU {:.1} and {:.1} us, ratio {:.3}",
            shape.name,
            pgsteer.cpu_us,
            haproxy.cpu_us,
            pair.cpu_ratio()
        );
        pairs.push(pair);
    }
    let direct_tps = shape::run(bench.lab, bench.direct, shape, time)?.tps;
    Ok(Pairs { shape: shape.name, pairs, direct_tps })
}

fn one(bench: &Bench<'_>, contender: Contender, shape: &Shape, time: Duration) -> Result<Run> {
    let before = cpu(contender.pid)?;
    let outcome = shape::run(bench.lab, contender.addr, shape, time)?;
    let used = cpu(contender.pid)?.saturating_sub(before);
    let cpu_us = used.as_secs_f64() * 1e6 / outcome.transactions.max(1) as f64;
    Ok(Run { tps: outcome.tps, latency_ms: outcome.latency_ms, cpu_us })
}

impl Pair {
    pub fn cpu_ratio(&self) -> f64 {
        self.pgsteer.cpu_us / self.haproxy.cpu_us
    }

    pub fn tps_ratio(&self) -> f64 {
        self.pgsteer.tps / self.haproxy.tps
    }

    pub fn latency_ratio(&self) -> f64 {
        self.pgsteer.latency_ms / self.haproxy.latency_ms
    }
}

impl Pairs {
    /// None if there is no pair.
    pub fn spread(&self, figure: impl Fn(&Pair) -> f64) -> Option<Spread> {
        let values: Vec<f64> = self.pairs.iter().map(figure).collect();
        Some(Spread {
            median: median(&values)?,
            least: values.iter().copied().min_by(f64::total_cmp)?,
            most: values.iter().copied().max_by(f64::total_cmp)?,
        })
    }
}
