use std::cell::RefCell;

use super::super::variables::tests::environment;
use super::*;

const PLACE: &str = "http://collector:4318";

/// What comes of these variables, and what is told.
fn read(variables: &[(&str, &str)]) -> (Option<Settings>, Vec<String>) {
    let told = RefCell::new(Vec::new());
    let tell = |line: &str| told.borrow_mut().push(line.to_owned());
    let settings = Settings::read(&environment(variables), "app.wasm", &tell);
    (settings, told.into_inner())
}

/// The same with an endpoint, and nothing wrong.
fn with(variables: &[(&str, &str)]) -> Settings {
    let all: Vec<_> = [(ENDPOINT, PLACE)]
        .iter()
        .chain(variables)
        .copied()
        .collect();
    let (settings, told) = read(&all);
    assert!(told.is_empty(), "{told:?}");
    settings.expect("settings")
}

/// What is told of these variables, beside an endpoint that is fine.
fn told(variables: &[(&str, &str)]) -> (bool, String) {
    let all: Vec<_> = [(ENDPOINT, PLACE)]
        .iter()
        .chain(variables)
        .copied()
        .collect();
    let (settings, told) = read(&all);
    assert_eq!(told.len(), 1, "{told:?}");
    (settings.is_some(), told.concat())
}

#[test]
fn without_an_endpoint_nothing_is_read() {
    for variables in [
        &[("OTEL_TRACES_SAMPLER", "nonsense")][..],
        &[(ENDPOINT, ""), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
    ] {
        let (settings, told) = read(variables);
        assert!(settings.is_none() && told.is_empty(), "{told:?}");
    }
}

#[test]
fn defaults_are_those_of_the_specification() {
    let settings = with(&[]);
    assert_eq!(settings.endpoint, "http://collector:4318/v1/traces");
    assert_eq!(settings.encoding, Encoding::Protobuf);
    assert!(!settings.gzip && settings.headers.is_empty());
    assert_eq!(settings.timeout, Duration::from_secs(10));
    assert_eq!(settings.batch_timeout, Duration::from_secs(30));
    assert_eq!(settings.delay, Duration::from_secs(5));
    assert_eq!((settings.queue, settings.batch), (2048, 512));
    assert_eq!(settings.sampler, Sampler::default());
    let name = (
        "service.name".to_owned(),
        "unknown_service:app.wasm".to_owned(),
    );
    assert!(settings.resource.contains(&name));
}

#[test]
fn an_endpoint_is_for_all_or_for_traces() {
    for (name, value, expected) in [
        (ENDPOINT, "https://c/base/", "https://c/base/v1/traces"),
        (
            ENDPOINT,
            "http://[::1]:1/base",
            "http://[::1]:1/base/v1/traces",
        ),
        (TRACES_ENDPOINT, "http://c:1/", "http://c:1/"),
        (TRACES_ENDPOINT, "http://c:1/x?y", "http://c:1/x?y"),
    ] {
        let (settings, told) = read(&[(name, value)]);
        let settings = settings.unwrap_or_else(|| panic!("{told:?}"));
        assert_eq!(settings.endpoint, expected);
        assert_eq!(settings.variable, name);
    }
    let settings = with(&[(TRACES_ENDPOINT, "http://other/x")]);
    assert_eq!(settings.endpoint, "http://other/x");
}

#[test]
fn what_is_no_endpoint_is_told() {
    for value in [
        "collector:4318",
        "grpc://c:1",
        "http://",
        "http://a b",
        "/v1",
        "http://c:x",
    ] {
        let (settings, told) = read(&[(ENDPOINT, value)]);
        assert!(settings.is_none(), "{value}");
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with(ENDPOINT), "{told:?}");
    }
}

#[test]
fn it_can_be_switched_off() {
    for variable in [
        ("OTEL_SDK_DISABLED", "True"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        let (settings, told) = read(&[(ENDPOINT, PLACE), variable]);
        assert!(settings.is_none() && told.is_empty(), "{told:?}");
    }
    with(&[
        ("OTEL_SDK_DISABLED", "false"),
        ("OTEL_TRACES_EXPORTER", "console, OTLP"),
    ]);
    let (on, line) = told(&[("OTEL_TRACES_EXPORTER", "zipkin")]);
    assert!(!on && line.contains("not supported"), "{line}");
    let (on, line) = told(&[("OTEL_TRACES_EXPORTER", "oltp")]);
    assert!(on && line.contains("ignored"), "{line}");
    let (on, line) = told(&[("OTEL_SDK_DISABLED", "1")]);
    assert!(on && line.contains("ignored"), "{line}");
}

#[test]
fn protocols_are_those_of_http() {
    let settings = with(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]);
    assert_eq!(settings.encoding, Encoding::Json);
    let settings = with(&[
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ]);
    assert_eq!(settings.encoding, Encoding::Protobuf);
    let (on, line) = told(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert!(!on && line.contains("http/protobuf"), "{line}");
    let (on, line) = told(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "thrift")]);
    assert!(on && line.contains("thrift"), "{line}");
    assert!(with(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]).gzip);
    assert!(
        !told(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "br")])
            .1
            .is_empty()
    );
}

#[test]
fn fields_are_decoded_and_never_shown() {
    let settings = with(&[(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "X-Key=a%20b,authorization=Basic%20c",
    )]);
    assert_eq!(settings.headers["x-key"], "a b");
    assert!(settings.headers["authorization"].is_sensitive());
    for value in [
        "secret",
        "=secret",
        "a b=secret",
        "host=secret",
        "a=secret%0a",
    ] {
        let (on, line) = told(&[("OTEL_EXPORTER_OTLP_HEADERS", value)]);
        assert!(on && !line.contains("secret"), "{line}");
    }
    let settings = with(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2"),
    ]);
    assert_eq!(settings.headers.len(), 1);
    assert_eq!(settings.headers["b"], "2");
}

#[test]
fn samplers_are_known_by_their_names() {
    let of = |name, argument| {
        with(&[
            ("OTEL_TRACES_SAMPLER", name),
            ("OTEL_TRACES_SAMPLER_ARG", argument),
        ])
        .sampler
    };
    for (name, argument, root, by_parent) in [
        ("always_on", "", Root::Always, false),
        ("always_off", "x", Root::Never, false),
        ("traceidratio", "", Root::ratio(1.0), false),
        ("traceidratio", "0.25", Root::ratio(0.25), false),
        ("parentbased_always_off", "", Root::Never, true),
        ("parentbased_traceidratio", "1e-3", Root::ratio(0.001), true),
    ] {
        assert_eq!(of(name, argument), Sampler { root, by_parent }, "{name}");
    }
    for argument in ["1.5", "-0.1", "NaN", "half"] {
        let (on, line) = told(&[
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", argument),
        ]);
        assert!(on && line.starts_with("OTEL_TRACES_SAMPLER_ARG"), "{line}");
    }
    assert!(told(&[("OTEL_TRACES_SAMPLER", "jaeger_remote")]).0);
}

#[test]
fn queues_and_batches_are_bounded() {
    let settings = with(&[
        ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
        ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "600"),
    ]);
    assert_eq!((settings.queue, settings.batch), (10, 10));
    assert_eq!(settings.delay, Duration::from_millis(250));
    assert_eq!(settings.batch_timeout, Duration::from_secs(1));
    assert_eq!(settings.timeout, Duration::from_millis(600));
    for variable in [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1000000000"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
    ] {
        let (on, line) = told(&[variable]);
        assert!(on && line.starts_with(variable.0), "{line}");
    }
}

#[test]
fn a_service_has_the_name_that_it_is_given() {
    let name = |settings: Settings| {
        let names = settings
            .resource
            .into_iter()
            .filter(|(name, _)| name == "service.name");
        names.map(|(_, value)| value).collect::<Vec<_>>()
    };
    let attributes = (
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=a%2Cb, k8s.pod.name=p",
    );
    assert_eq!(name(with(&[attributes])), ["a,b"]);
    assert_eq!(name(with(&[attributes, ("OTEL_SERVICE_NAME", "c")])), ["c"]);
    let pod = ("k8s.pod.name".to_owned(), "p".to_owned());
    assert!(with(&[attributes]).resource.contains(&pod));
    // Said twice, the last counts, and there is one.
    let twice = (
        "OTEL_RESOURCE_ATTRIBUTES",
        "a=1,service.name=x,a=2,service.name=y",
    );
    assert_eq!(name(with(&[twice])), ["y"]);
    let resource = with(&[twice]).resource;
    let of_a: Vec<_> = resource.iter().filter(|(name, _)| name == "a").collect();
    assert_eq!(of_a, [&("a".to_owned(), "2".to_owned())]);
    // Of a list with a mistake nothing is believed.
    let (settings, told) = read(&[
        (ENDPOINT, PLACE),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,b"),
    ]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        name(settings.expect("settings")),
        ["unknown_service:app.wasm"]
    );
}

#[test]
fn what_is_not_supported_is_told() {
    let (on, line) = told(&[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem")]);
    assert!(on && line.contains("SSL_CERT_FILE"), "{line}");
    assert!(told(&[("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/c.pem")]).0);
}
