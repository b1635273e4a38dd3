//! What the container's environment says about traces.

use std::collections::HashSet;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme, Uri};

use super::sampler::{Root, Sampler};
use super::variables::{Variable, Variables, pairs};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// The most spans that may wait, whatever the environment says: an image must not
/// make its host grow.
const MOST_WAITING: usize = 16_384;

/// Fields of a request that are not for others to say.
const OWN: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::HOST,
];

/// How spans are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Protobuf,
    Json,
}

/// Where spans go, and which.
#[derive(Debug)]
pub struct Settings {
    /// The variable that says so.
    pub variable: &'static str,
    pub endpoint: Uri,
    pub encoding: Encoding,
    pub gzip: bool,
    pub headers: HeaderMap,
    /// For each try.
    pub timeout: Duration,
    /// For a batch, however often it is tried.
    pub batch_timeout: Duration,
    /// Between two batches, unless there are enough spans for one before that.
    pub delay: Duration,
    /// How many spans may wait.
    pub queue: usize,
    /// How many are sent at once.
    pub batch: usize,
    pub sampler: Sampler,
    /// What all spans have in common.
    pub resource: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Http(Encoding),
    Grpc,
}

impl Settings {
    /// Reads the variables of a container whose program is `program`; `None`
    /// where no spans are to be exported. `tell` is told what is wrong.
    pub fn read(env: &[(String, String)], program: &str, tell: &dyn Fn(&str)) -> Option<Self> {
        let variables = Variables::new(env, tell);
        let named = variables.find(&[TRACES_ENDPOINT, ENDPOINT])?;
        let known = [("false", false), ("true", true)];
        let disabled = variables.choice(&["OTEL_SDK_DISABLED"], &known, false);
        if disabled || !wants_otlp(&variables) {
            return None;
        }
        let encoding = encoding(&variables)?;
        let Some(endpoint) = endpoint(named) else {
            let problem = "is not http://HOST[:PORT][/PATH]; no spans are exported";
            variables.complain(named, problem);
            return None;
        };
        variables.not_read(
            &[
                "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
            ],
            "SSL_CERT_FILE says whose certificates are believed",
        );
        variables.not_read(
            &[
                "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            ],
            "there are no certificates of clients",
        );
        let queue = variables.number(&["OTEL_BSP_MAX_QUEUE_SIZE"], 1..=MOST_WAITING, 2048);
        let batch = 1..=queue;
        Some(Self {
            variable: if named.name == ENDPOINT {
                ENDPOINT
            } else {
                TRACES_ENDPOINT
            },
            endpoint,
            encoding,
            gzip: gzip(&variables),
            headers: headers(&variables),
            timeout: variables.time(
                &[
                    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
                    "OTEL_EXPORTER_OTLP_TIMEOUT",
                ],
                10_000,
            ),
            batch_timeout: variables.time(&["OTEL_BSP_EXPORT_TIMEOUT"], 30_000),
            delay: variables.time(&["OTEL_BSP_SCHEDULE_DELAY"], 5000),
            queue,
            batch: variables.number(&["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"], batch, queue.min(512)),
            sampler: sampler(&variables),
            resource: resource(&variables, program),
        })
    }
}

/// Whether `OTEL_TRACES_EXPORTER`, a list, names the one that there is, as it does
/// where it says nothing that is known.
fn wants_otlp(variables: &Variables<'_>) -> bool {
    const NAME: &str = "OTEL_TRACES_EXPORTER";
    let Some(variable) = variables.find(&[NAME]) else {
        return true;
    };
    let has = |wanted: &str| {
        let mut items = variable.value.split(',').map(str::trim);
        items.any(|item| item.eq_ignore_ascii_case(wanted))
    };
    if has("otlp") {
        return true;
    }
    if has("none") {
        return false;
    }
    if ["console", "logging", "zipkin", "jaeger"]
        .into_iter()
        .any(has)
    {
        variables.complain(variable, "is not supported, otlp is; no spans are exported");
        return false;
    }
    variables.complain(variable, "is ignored: it is none of otlp, none");
    true
}

fn encoding(variables: &Variables<'_>) -> Option<Encoding> {
    const NAMES: [&str; 2] = [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ];
    let known = [
        ("http/protobuf", Protocol::Http(Encoding::Protobuf)),
        ("http/json", Protocol::Http(Encoding::Json)),
        ("grpc", Protocol::Grpc),
    ];
    match variables.choice(&NAMES, &known, Protocol::Http(Encoding::Protobuf)) {
        Protocol::Http(encoding) => Some(encoding),
        Protocol::Grpc => {
            if let Some(variable) = variables.find(&NAMES) {
                let problem = "is not supported, http/protobuf and http/json are, most often at \
                               port 4318; no spans are exported";
                variables.complain(variable, problem);
            }
            None
        }
    }
}

/// Where traces are taken: at the place that is named for them, or at their path
/// below the one that is named for everything.
fn endpoint(named: Variable<'_>) -> Option<Uri> {
    let uri: Uri = named.value.parse().ok()?;
    let is_http = |scheme: &Scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
    let authority = uri.authority()?;
    let place = authority.as_str().rsplit('@').next()?;
    // What is not a number is no port, and not the usual one either.
    let is_place = place == authority.host() || authority.port_u16().is_some();
    if !uri.scheme().is_some_and(is_http) || authority.host().is_empty() || !is_place {
        return None;
    }
    if named.name == TRACES_ENDPOINT {
        return Some(uri);
    }
    let mut parts = uri.into_parts();
    let path = parts
        .path_and_query
        .as_ref()
        .map_or("/", PathAndQuery::path);
    let path = format!("{}/v1/traces", path.strip_suffix('/').unwrap_or(path));
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

fn gzip(variables: &Variables<'_>) -> bool {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
    ];
    variables.choice(&names, &[("none", false), ("gzip", true)], false)
}

fn headers(variables: &Variables<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ];
    let Some(variable) = variables.find(&names) else {
        return headers;
    };
    for (place, pair) in pairs(variable.value).enumerate() {
        let field = pair.and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            (!OWN.contains(&name)).then_some((name, value))
        });
        match field {
            Some((name, value)) => drop(headers.insert(name, value)),
            // What it says may be a secret.
            None => variables.complain_unseen(
                variable,
                &format!(
                    "its entry {} is ignored: it is no NAME=VALUE of a field",
                    place + 1
                ),
            ),
        }
    }
    headers
}

fn sampler(variables: &Variables<'_>) -> Sampler {
    let of = |root, by_parent| Sampler { root, by_parent };
    // Of a ratio that is not known yet.
    let part = Root::ratio(1.0);
    let known = [
        ("always_on", of(Root::Always, false)),
        ("always_off", of(Root::Never, false)),
        ("traceidratio", of(part, false)),
        ("parentbased_always_on", of(Root::Always, true)),
        ("parentbased_always_off", of(Root::Never, true)),
        ("parentbased_traceidratio", of(part, true)),
    ];
    let mut sampler = variables.choice(&["OTEL_TRACES_SAMPLER"], &known, Sampler::default());
    if sampler.root == part
        && let Some(variable) = variables.find(&["OTEL_TRACES_SAMPLER_ARG"])
    {
        match variable.value.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => sampler.root = Root::ratio(ratio),
            _ => variables.complain(variable, "is ignored: it is not a number from 0 to 1"),
        }
    }
    sampler
}

fn resource(variables: &Variables<'_>, program: &str) -> Vec<(String, String)> {
    const SERVICE: &str = "service.name";
    let mut resource = Vec::new();
    if let Some(variable) = variables.find(&["OTEL_RESOURCE_ATTRIBUTES"]) {
        let all: Option<Vec<_>> = pairs(variable.value).collect();
        match all {
            Some(all) => {
                // A name has one value, the last, as in other implementations.
                let mut known = HashSet::new();
                resource.extend(
                    all.into_iter()
                        .rev()
                        .filter(|(name, _)| known.insert(*name))
                        .map(|(name, value)| (name.to_owned(), value)),
                );
                resource.reverse();
            }
            None => variables.complain(variable, "is ignored: it is not a list of NAME=VALUE"),
        }
    }
    // Others say it by name.
    let named = variables.find(&["OTEL_SERVICE_NAME"]);
    let known = resource.iter().any(|(name, _)| name == SERVICE);
    if named.is_some() || !known {
        resource.retain(|(name, _)| name != SERVICE);
        let name = match named {
            Some(variable) => variable.value.to_owned(),
            None => format!("unknown_service:{program}"),
        };
        resource.push((SERVICE.to_owned(), name));
    }
    for (name, value) in [
        ("telemetry.sdk.name", "wisp"),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ] {
        if !resource.iter().any(|(known, _)| known == name) {
            resource.push((name.to_owned(), value.to_owned()));
        }
    }
    resource
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
