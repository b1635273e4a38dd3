//! What a server counts, and how Prometheus reads it.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A number that goes up, or up and down.
#[derive(Default)]
pub struct Number(AtomicU64);

impl Number {
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    pub fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of a histogram's buckets in seconds, as texts that are the
/// labels and in microseconds.
const REQUEST_BOUNDS: [(&str, u64); 12] = [
    ("0.0005", 500),
    ("0.001", 1000),
    ("0.0025", 2500),
    ("0.005", 5000),
    ("0.01", 10_000),
    ("0.025", 25_000),
    ("0.05", 50_000),
    ("0.1", 100_000),
    ("0.25", 250_000),
    ("1", 1_000_000),
    ("5", 5_000_000),
    ("30", 30_000_000),
];
const INSTANTIATE_BOUNDS: [(&str, u64); 8] = [
    ("0.00001", 10),
    ("0.000025", 25),
    ("0.00005", 50),
    ("0.0001", 100),
    ("0.00025", 250),
    ("0.001", 1000),
    ("0.01", 10_000),
    ("0.1", 100_000),
];

struct Histogram<const N: usize> {
    bounds: &'static [(&'static str, u64); N],
    buckets: [Number; N],
    count: Number,
    microseconds: Number,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [(&'static str, u64); N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Number::default()),
            count: Number::default(),
            microseconds: Number::default(),
        }
    }

    fn observe(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = self
            .bounds
            .partition_point(|(_, most)| *most < microseconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.add(1);
        }
        self.count.add(1);
        self.microseconds.add(microseconds);
    }

    fn write(&self, out: &mut String, name: &str) -> std::fmt::Result {
        let mut sum = 0;
        for ((label, _), bucket) in self.bounds.iter().zip(&self.buckets) {
            sum += bucket.get();
            writeln!(out, "{name}_bucket{{le=\"{label}\"}} {sum}")?;
        }
        // Those of another thread may have come in between.
        let count = self.count.get().max(sum);
        writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}")?;
        let seconds = self.microseconds.get() as f64 / 1e6;
        writeln!(out, "{name}_sum {seconds}")?;
        writeln!(out, "{name}_count {count}")
    }
}

/// The first code of HTTP, and one more than the last.
const CODES: std::ops::Range<u16> = 100..600;

/// All that a server counts.
pub struct Metrics {
    codes: Box<[Number]>,
    durations: Histogram<12>,
    instantiations: Histogram<8>,
    pub in_flight: Number,
    pub connections: Number,
    pub instances_reused: Number,
    pub instances_failed: Number,
    /// Requests that got no turn.
    pub turned_away: Number,
    /// Requests whose guest took too long.
    pub timed_out: Number,
}

/// What others count.
pub struct Gauges {
    /// Requests that wait for a turn.
    pub queued: u64,
    /// Bytes of linear memories and tables.
    pub memory: u64,
    /// What was refused to the guest for want of a grant.
    pub refused: u64,
}

impl Metrics {
    pub fn new() -> Self {
        Self {
            codes: CODES.map(|_| Number::default()).collect(),
            durations: Histogram::new(&REQUEST_BOUNDS),
            instantiations: Histogram::new(&INSTANTIATE_BOUNDS),
            in_flight: Number::default(),
            connections: Number::default(),
            instances_reused: Number::default(),
            instances_failed: Number::default(),
            turned_away: Number::default(),
            timed_out: Number::default(),
        }
    }

    /// A request is over.
    pub fn ended(&self, code: u16, took: Duration) {
        let place = code.checked_sub(CODES.start).map(usize::from);
        if let Some(number) = place.and_then(|place| self.codes.get(place)) {
            number.add(1);
        }
        self.durations.observe(took);
    }

    /// An instance was made.
    pub fn instantiated(&self, took: Duration) {
        self.instantiations.observe(took);
    }

    /// The text format that Prometheus reads, version 0.0.4.
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut out = String::with_capacity(4096);
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, gauges);
        out
    }

    fn write(&self, out: &mut String, gauges: &Gauges) -> std::fmt::Result {
        let name = "wisp_http_requests_total";
        head(
            out,
            name,
            "counter",
            "Requests that are over, by status; 499 is a client that left before the response",
        )?;
        for (code, number) in CODES.zip(&self.codes) {
            if number.get() > 0 {
                writeln!(out, "{name}{{code=\"{code}\"}} {}", number.get())?;
            }
        }
        let name = "wisp_http_request_duration_seconds";
        head(
            out,
            name,
            "histogram",
            "From a request's head to the end of its response",
        )?;
        self.durations.write(out, name)?;
        let name = "wisp_http_instantiate_duration_seconds";
        head(
            out,
            name,
            "histogram",
            "What it took to make an instance; its count is the number of instances made",
        )?;
        self.instantiations.write(out, name)?;
        for (name, kind, help, value) in [
            (
                "wisp_http_requests_in_flight",
                "gauge",
                "Requests that are not over",
                self.in_flight.get(),
            ),
            (
                "wisp_http_requests_queued",
                "gauge",
                "Requests that wait for their turn",
                gauges.queued,
            ),
            (
                "wisp_http_connections",
                "gauge",
                "Connections of clients",
                self.connections.get(),
            ),
            (
                "wisp_http_requests_rejected_total",
                "counter",
                "Requests that got no turn",
                self.turned_away.get(),
            ),
            (
                "wisp_http_requests_timed_out_total",
                "counter",
                "Requests whose guest was ended because it took too long",
                self.timed_out.get(),
            ),
            (
                "wisp_http_instances_reused_total",
                "counter",
                "Requests that went to an instance used before",
                self.instances_reused.get(),
            ),
            (
                "wisp_http_instances_failed_total",
                "counter",
                "Instances that trapped, failed or took too long",
                self.instances_failed.get(),
            ),
            (
                "wisp_guest_memory_bytes",
                "gauge",
                "Linear memories and tables of all instances",
                gauges.memory,
            ),
            (
                "wisp_guest_refusals_total",
                "counter",
                "Connections, sockets, lookups and requests that no rule granted",
                gauges.refused,
            ),
        ] {
            head(out, name, kind, help)?;
            writeln!(out, "{name} {value}")?;
        }
        Ok(())
    }
}

/// What stands before a metric's values.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::new();
        metrics.ended(200, Duration::from_micros(700));
        metrics.ended(200, Duration::from_secs(2));
        metrics.ended(503, Duration::from_secs(100));
        metrics.ended(999, Duration::ZERO);
        metrics.instantiated(Duration::from_micros(10));
        metrics.in_flight.add(2);
        metrics.in_flight.subtract(1);
        let text = metrics.text(&Gauges {
            queued: 3,
            memory: 65_536,
            refused: 4,
        });
        for line in [
            "# TYPE wisp_http_requests_total counter",
            "wisp_http_requests_total{code=\"200\"} 2",
            "wisp_http_requests_total{code=\"503\"} 1",
            "wisp_http_request_duration_seconds_bucket{le=\"0.0005\"} 1",
            "wisp_http_request_duration_seconds_bucket{le=\"0.001\"} 2",
            "wisp_http_request_duration_seconds_bucket{le=\"30\"} 3",
            "wisp_http_request_duration_seconds_bucket{le=\"+Inf\"} 4",
            "wisp_http_request_duration_seconds_count 4",
            "wisp_http_request_duration_seconds_sum 102.0007",
            "wisp_http_instantiate_duration_seconds_bucket{le=\"0.00001\"} 1",
            "wisp_http_requests_in_flight 1",
            "wisp_http_requests_queued 3",
            "wisp_guest_memory_bytes 65536",
            "wisp_guest_refusals_total 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("code=\"404\""));
    }
}
