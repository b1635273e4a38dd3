//! What the report says of HTTP servers.

use crate::http::cases::{Case, cases};
use crate::measure::http::names::{
    PERCENTILES, idle_pss, instance, latency, loaded_pss, open, rate, soak_growth, soak_pss,
    together_pss,
};
use crate::report::{line, number, ordered};
use crate::results::Results;
use crate::subjects::Section;

const METHOD: &str = "\
A client of the benchmarks' own holds the connections (HTTP/1.1, kept alive), sends the
next request on each when the response to the one before has come (a closed loop), and
checks the status and the length of each response; one wrong answer, and the server is
not measured. All servers of a case are there at once, and idle but for the one that is
asked: each in turn for a part of a second, several times, so that those who are compared
had the same minutes of a machine that others share. With one core, the server has the
first processor for itself and the client the second. With two, both share both where the
machine has no more.

| contestant | what |
|---|---|
| wisp | a container in containerd, as users have it |
| wisp-run | `wisp run`: the same server without a container |
| wisp-before | an earlier version of wisp, in a container |
| wasmtime | `wasmtime serve` as it comes, of the Wasmtime that wisp has, but for how often an instance is used, which is the row's |
| wasmtime-tuned | the same with the flags that make it fastest: memory that instances have written stays for the next, and the kernel says what it was (`PAGEMAP_SCAN`) |
| wasmtime-timeout | the same with a limit to how long a request may take, where guests compute much: as wisp's, their code asks again and again whether the time has come |
| runwasi | the peer shim, in a container: a pool of Wasmtime's default size, a fresh instance for each request, like the Wasmtime shim of its project |
| hyper | a native server, a thread and an event loop per core, without Wasm |
";

const OPEN: &str = "\
The same requests at 70 % of what the server did right before with 32 connections and one
core, at random times that do not depend on the server (an open loop). A request that finds
no connection free waits, and its latency counts from when it was due, so a server that
stalls is seen to stall (coordinated omission). The row of hyper in the first case is the
native server at 70 % of what it can do: what is in it, the machine and the client do. A
machine that stands still for a millisecond costs each server the same share of its
requests, and all have as little left over to make up for it.";

const MEMORY: &str = "\
PSS of the process that serves, two seconds after its first answer, alone and as one of 20,
and two seconds after the load of all rows with one core. The daemon of a container is not in
it. Most of what one weighs alone are pages of its program's file, which the kernel maps in
large pieces, and which all containers of a node share.";

const INSTANCE: &str = "\
The time of a request that has a fresh instance less that of one whose instance is reused,
with 32 connections and one core that does nothing else: store, instance, first touch of its
memory and drop.";

const SOAK: &str = "\
PSS of wisp's process between equal parts of very many requests with 32 connections: growth is
what the last quarter weighs more than the second.";

/// Charts, made as those of the other subjects are.
pub fn charts() -> Vec<Section> {
    let rates = |title, chart, some: &[Case]| {
        let measures: Vec<(String, String)> = some
            .iter()
            .map(|case| {
                let measure = rate(case.name, case.connections(), 1);
                (measure, case.title.to_owned())
            })
            .collect();
        section(title, chart, measures)
    };
    let all = cases();
    vec![
        rates("HTTP requests per second, one core", "http-rate", &all),
        section(
            "HTTP p99 at 70 % of the capacity",
            "http-open-p99",
            all.iter()
                .map(|case| (open(case.name, "p99"), case.title.to_owned()))
                .collect(),
        ),
        section(
            "Memory of HTTP servers after load",
            "http-memory",
            all.iter()
                .map(|case| (loaded_pss(case.name), case.title.to_owned()))
                .collect(),
        ),
    ]
}

fn section(title: &'static str, chart: &'static str, measures: Vec<(String, String)>) -> Section {
    Section {
        title,
        chart,
        method: "",
        charted: measures.iter().map(|(name, _)| name.clone()).collect(),
        measures,
    }
}

/// Everything in tables, or nothing if nothing was measured.
pub fn tables(results: &Results) -> Option<String> {
    let all: Vec<(Case, String)> = cases()
        .into_iter()
        .map(|case| {
            let rows = load_rows(results, &case);
            (case, rows)
        })
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    if all.is_empty() {
        return None;
    }
    let mut text = format!("## HTTP servers\n\n{METHOD}\n{}", image(&charts()[0]));
    for (case, rows) in &all {
        line(
            &mut text,
            format_args!(
                "### {}\n\n{}\n\n| cores | connections | contestant | per s | spread | p50 ms | p99 ms | p99.9 ms | wisp ÷ it |\n|--:|--:|---|--:|--:|--:|--:|--:|--:|\n{rows}",
                case.title, case.what
            ),
        );
    }
    let rows = of_all(results, |case| {
        PERCENTILES
            .map(|(percentile, _)| open(case, percentile))
            .to_vec()
    });
    if !rows.is_empty() {
        line(
            &mut text,
            format_args!(
                "### Latency at 70 % of the capacity\n\n{OPEN}\n\n{}| | contestant | p50 ms | p99 ms | p99.9 ms |\n|---|---|--:|--:|--:|\n{rows}",
                image(&charts()[1])
            ),
        );
    }
    let rows = of_all(results, |case| {
        vec![idle_pss(case), together_pss(case), loaded_pss(case)]
    });
    if !rows.is_empty() {
        line(
            &mut text,
            format_args!(
                "### Memory\n\n{MEMORY}\n\n{}| MiB | contestant | idle | each of 20 idle | after load |\n|---|---|--:|--:|--:|\n{rows}",
                image(&charts()[2])
            ),
        );
    }
    let rows: String = ["02", "03"]
        .map(|interface| instance_row(results, interface))
        .concat();
    if !rows.is_empty() {
        line(
            &mut text,
            format_args!(
                "### What an instance costs\n\n{INSTANCE}\n\n| µs | contestant | |\n|---|---|--:|\n{rows}"
            ),
        );
    }
    let rows = soak_rows(results);
    if !rows.is_empty() {
        line(
            &mut text,
            format_args!(
                "### Over time\n\n{SOAK}\n\n| | MiB, in the order of time | growth |\n|---|---|--:|\n{rows}"
            ),
        );
    }
    Some(text)
}

fn instance_row(results: &Results, interface: &str) -> String {
    let mut rows = String::new();
    let name = instance(interface);
    let mut title = format!("0.{}", interface.trim_start_matches('0'));
    if let Some(measure) = results.get(&name) {
        for contestant in ordered(measure) {
            let value = results.median(&name, contestant).map(|(value, _)| value);
            line(
                &mut rows,
                format_args!("| {title} | {contestant} | {} |", number(value)),
            );
            title = String::new();
        }
    }
    rows
}

fn soak_rows(results: &Results) -> String {
    let mut rows = String::new();
    for case in cases() {
        let Some(weights) = results
            .get(&soak_pss(case.name))
            .and_then(|measure| measure.of.get("wisp"))
        else {
            continue;
        };
        let weights: Vec<String> = weights
            .all()
            .iter()
            .map(|mib| format!("{mib:.2}"))
            .collect();
        let growth = results.median(&soak_growth(case.name), "wisp");
        line(
            &mut rows,
            format_args!(
                "| {} | {} | {} |",
                case.title,
                weights.join(" "),
                number(growth.map(|(value, _)| value))
            ),
        );
    }
    rows
}

fn image(section: &Section) -> String {
    format!("![{}](benchmarks/{}.svg)\n\n", section.title, section.chart)
}

/// Rates and latencies of a case.
fn load_rows(results: &Results, case: &Case) -> String {
    let mut rows = String::new();
    for cores in 1..=2 {
        for connections in [1, 4, 32, 256] {
            let name = rate(case.name, connections, cores);
            let Some(measure) = results.get(&name) else {
                continue;
            };
            let wisp = results.median(&name, "wisp").map(|(rate, _)| rate);
            let mut labels = (cores.to_string(), connections.to_string());
            for contestant in ordered(measure) {
                let samples = measure.of.get(contestant);
                let median = samples.and_then(|samples| samples.median());
                let spread = samples.and_then(|samples| samples.spread());
                let ratio = wisp.zip(median).filter(|_| contestant != "wisp");
                let latencies = PERCENTILES.map(|(percentile, _)| {
                    let name = latency(case.name, connections, cores, percentile);
                    number(results.median(&name, contestant).map(|(value, _)| value))
                });
                line(
                    &mut rows,
                    format_args!(
                        "| {} | {} | {contestant} | {} | {} | {} | {} |",
                        labels.0,
                        labels.1,
                        number(median),
                        spread.map_or_else(
                            || "–".to_owned(),
                            |spread| format!("{:.0} %", spread * 100.0)
                        ),
                        latencies.join(" | "),
                        ratio.map_or_else(String::new, |(wisp, it)| format!("{:.2}", wisp / it)),
                    ),
                );
                labels = (String::new(), String::new());
            }
        }
    }
    rows
}

/// A row for each contestant in each case, with the medians of some measures.
fn of_all(results: &Results, measures: impl Fn(&str) -> Vec<String>) -> String {
    let mut rows = String::new();
    for case in cases() {
        let mut title = case.title;
        let names = measures(case.name);
        let Some(measure) = results.get(&names[0]) else {
            continue;
        };
        for contestant in ordered(measure) {
            let values: Vec<String> = names
                .iter()
                .map(|name| number(results.median(name, contestant).map(|(value, _)| value)))
                .collect();
            line(
                &mut rows,
                format_args!("| {title} | {contestant} | {} |", values.join(" | ")),
            );
            title = "";
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Unit;

    #[test]
    fn what_was_measured_is_in_the_tables() {
        let mut results = Results::default();
        assert_eq!(tables(&results), None);
        let name = rate("hello-02-fresh", 32, 1);
        results.add(&name, Unit::PerSecond, "wisp", 30_000.0);
        results.add(&name, Unit::PerSecond, "runwasi", 20_000.0);
        results.failed(&name, Unit::PerSecond, "wasmtime");
        let p99 = latency("hello-02-fresh", 32, 1, "p99");
        results.add(&p99, Unit::Milliseconds, "wisp", 1.25);
        results.add(
            &open("hello-02-fresh", "p50"),
            Unit::Milliseconds,
            "wisp",
            0.5,
        );
        results.add(&idle_pss("hello-02-fresh"), Unit::Mebibytes, "wisp", 3.5);
        results.add(&instance("02"), Unit::Microseconds, "wisp", 18.0);
        results.add(&soak_pss("hello-02-fresh"), Unit::Mebibytes, "wisp", 5.0);

        let text = tables(&results).expect("tables");
        for row in [
            "| 1 | 32 | wisp | 30000 | 0 % | – | 1.25 | – |  |",
            "|  |  | wasmtime | – | – | – | – | – |  |",
            "|  |  | runwasi | 20000 | 0 % | – | – | – | 1.50 |",
            "| hello, 0.2, fresh | wisp | 0.500 | – | – |",
            "| hello, 0.2, fresh | wisp | 3.50 | – | – |",
            "| 0.2 | wisp | 18.0 |",
            "| hello, 0.2, fresh | 5.00 | – |",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
    }
}
