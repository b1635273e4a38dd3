//! The names of measures of HTTP servers.

/// The part of its capacity at which a server is asked for honest latencies.
pub const PART: f64 = 0.7;
/// Responses per second, with so many connections and processors.
pub fn rate(case: &str, connections: usize, cores: usize) -> String {
    format!("http-{case}-{connections}x{cores}")
}

/// A percentile of that run's latencies.
pub fn latency(case: &str, connections: usize, cores: usize, percentile: &str) -> String {
    format!("{}-{percentile}", rate(case, connections, cores))
}

/// A percentile of the latencies at a part of the capacity.
pub fn open(case: &str, percentile: &str) -> String {
    format!("http-{case}-open-{percentile}")
}

/// The server process's memory before it has been asked for more than one thing.
pub fn idle_pss(case: &str) -> String {
    format!("http-{case}-idle-pss")
}

/// How many servers of a kind are weighed together.
pub const TOGETHER: usize = 20;

/// The same of [`TOGETHER`] servers, each.
pub fn together_pss(case: &str) -> String {
    format!("http-{case}-idle-{TOGETHER}-pss")
}

/// The same after the load.
pub fn loaded_pss(case: &str) -> String {
    format!("http-{case}-loaded-pss")
}

/// The percentiles that are taken of latencies.
pub const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// What an instance costs a request: made and dropped, with its store.
pub fn instance(interface: &str) -> String {
    format!("http-instance-{interface}")
}

/// The server process's memory during a soak, in the order of time.
pub fn soak_pss(case: &str) -> String {
    format!("http-{case}-soak-pss")
}

/// How much more it is in the last quarter than in the second.
pub fn soak_growth(case: &str) -> String {
    format!("http-{case}-soak-growth")
}
