use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use wisp_capability::{Policy, grant};

use super::*;

const SOON: Duration = Duration::from_millis(50);

/// A client with these rules and this environment, whose guest sees `root`.
fn client(rules: &str, env: &[(&str, &str)], root: &Path) -> Arc<Client> {
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let key = wisp_capability::annotation::NET_OUTBOUND.to_owned();
    let grant = grant(&wisp_capability::Request {
        args: &["guest".to_owned()],
        env: &env,
        cwd: "/",
        annotations: &BTreeMap::from([(key, rules.to_owned())]),
        mounts: &[],
        root_readonly: false,
        host_network: true,
        memory_limit: None,
        namespace: "",
        policy: &Policy::default(),
    })
    .expect("grant");
    let preopen = HostPreopen {
        host: root.into(),
        guest: "/".into(),
        writable: false,
    };
    let network = Arc::new(Network::new(&grant));
    Arc::new(Client::new(&grant, &[preopen], network))
}

fn plain(rules: &str) -> Arc<Client> {
    client(rules, &[], Path::new("/nowhere"))
}

fn request(method: &str, uri: &str, body: &'static str) -> Request<WasiBody> {
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    Request::builder()
        .method(method)
        .uri(uri)
        .body(body.map_err(|never| match never {}).boxed_unsync())
        .expect("request")
}

async fn ask(client: &Arc<Client>, request: Request<WasiBody>) -> Result<String, Error> {
    let (response, _) = client
        .clone()
        .send(request, RequestOptions::default())
        .await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn get(client: &Arc<Client>, uri: &str) -> Result<String, Error> {
    ask(client, request("GET", uri, "")).await
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address");
    (listener, address)
}

/// A server that says how it was asked, and the number of its connections.
async fn server(tls: Option<TlsAcceptor>) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listener().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            counted.fetch_add(1, Relaxed);
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    // Who does not believe the server does not come in.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            answer(stream).await;
                        }
                    }
                    None => answer(stream).await,
                }
            });
        }
    });
    (address, count)
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let host = request.headers().get("host").map(|host| host.to_str());
        let told = request.headers().contains_key("proxy-authorization");
        let text = format!(
            "{:?} {} {} host {:?}{}",
            request.version(),
            request.method(),
            request.uri(),
            host.transpose().expect("text"),
            if told { " told who" } else { "" }
        );
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
    });
    // The client may go away.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A server's side of TLS with these protocols, and the certificate to believe
/// in a directory.
fn tls(protocols: &[&[u8]]) -> (TlsAcceptor, tempfile::TempDir) {
    let names = ["localhost", "127.0.0.1", "a.example"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).expect("certificate");
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("server");
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).expect("write");
    (TlsAcceptor::from(Arc::new(config)), dir)
}

const BELIEVE: (&str, &str) = ("SSL_CERT_FILE", "/ca.pem");

#[tokio::test]
async fn one_request_after_another_takes_one_connection() {
    let (address, count) = server(None).await;
    let client = plain(&format!("http://{address}"));
    for _ in 0..20 {
        let told = get(&client, &format!("http://me:x@{address}/a?b"))
            .await
            .expect("answer");
        assert_eq!(
            told,
            format!("HTTP/1.1 GET /a?b host Some({:?})", address.to_string())
        );
    }
    assert_eq!(count.load(Relaxed), 1);
}

#[tokio::test]
async fn requests_at_once_take_a_connection_each() {
    let (address, count) = server(None).await;
    let client = plain(&format!("http://{address}"));
    let uri = format!("http://{address}/");
    let (one, two) = tokio::join!(get(&client, &uri), get(&client, &uri));
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(count.load(Relaxed), 2);
}

#[tokio::test]
async fn http2_is_spoken_where_tls_agrees_on_it_and_has_room_for_all() {
    let (acceptor, dir) = tls(&[b"h2", b"http/1.1"]);
    let (address, count) = server(Some(acceptor)).await;
    let client = client(&format!("https://{address}"), &[BELIEVE], dir.path());
    let uri = format!("https://{address}/a");
    for _ in 0..3 {
        let told = get(&client, &uri).await.expect("answer");
        assert_eq!(told, format!("HTTP/2.0 GET https://{address}/a host None"));
    }
    let (one, two) = tokio::join!(get(&client, &uri), get(&client, &uri));
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(count.load(Relaxed), 1);
}

#[tokio::test]
async fn a_server_with_tls_may_speak_http1_and_is_believed_by_its_name() {
    for protocols in [&[&b"http/1.1"[..]][..], &[]] {
        let (acceptor, dir) = tls(protocols);
        let (address, count) = server(Some(acceptor)).await;
        let client = client("https://localhost", &[BELIEVE], dir.path());
        let uri = format!("https://localhost:{}/", address.port());
        for _ in 0..3 {
            let told = get(&client, &uri).await.expect("answer");
            assert!(
                told.starts_with("HTTP/1.1 GET / host Some(\"localhost:"),
                "{told}"
            );
        }
        assert_eq!(count.load(Relaxed), 1);
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_believed() {
    let (acceptor, _) = tls(&[]);
    let (address, _) = server(Some(acceptor)).await;
    let (_, other) = tls(&[]);
    let client = client(&format!("https://{address}"), &[BELIEVE], other.path());
    let error = get(&client, &format!("https://{address}/"))
        .await
        .expect_err("believed");
    assert!(matches!(error, Error::TlsCertificateError), "{error}");
}

#[tokio::test]
async fn certificates_that_cannot_be_read_fail_the_request() {
    let (acceptor, _) = tls(&[]);
    let (address, _) = server(Some(acceptor)).await;
    let client = client(
        &format!("https://{address}"),
        &[BELIEVE],
        Path::new("/nowhere"),
    );
    let error = get(&client, &format!("https://{address}/"))
        .await
        .expect_err("believed");
    assert!(
        error.to_string().contains("SSL_CERT_FILE=/ca.pem"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_not_granted_is_not_asked() {
    let (address, count) = server(None).await;
    let other = plain("http://127.0.0.1:1");
    let error = get(&other, &format!("http://{address}/"))
        .await
        .expect_err("denied");
    assert!(matches!(error, Error::HttpRequestDenied), "{error}");
    // By name it may be asked for; where the name leads, it may not.
    let star = plain("*");
    let uri = format!("http://localhost:{}/", address.port());
    let error = get(&star, &uri).await.expect_err("prohibited");
    assert!(matches!(error, Error::DestinationIpProhibited), "{error}");
    let open = plain(&format!("http://{address}"));
    let tunnel = request("CONNECT", &format!("http://{address}/"), "");
    assert!(ask(&open, tunnel).await.is_err());
    assert_eq!(count.load(Relaxed), 0);
}

/// A proxy that counts what it is asked and tells it, and makes tunnels to
/// `target` whatever it is asked for.
async fn proxy(target: SocketAddr) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let (listener, address) = listener().await;
    let (sender, asked) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let sender = sender.clone();
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                let line = head.lines().next().unwrap_or_default().to_owned();
                sender.send(line.clone()).await.expect("told");
                assert!(head.contains("Basic bWU6c2VjcmV0"), "{head}");
                if line.starts_with("CONNECT") {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
                        .await
                        .expect("write");
                    let mut there = TcpStream::connect(target).await.expect("target");
                    // How it ends is for the others to say.
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
                } else {
                    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nby proxy\n";
                    stream.write_all(text).await.expect("write");
                }
            });
        }
    });
    (address, asked)
}

/// What a client says up to an empty line.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("head"));
    }
    String::from_utf8(head).expect("text").to_owned()
}

#[tokio::test]
async fn a_proxy_is_asked_in_the_targets_place() {
    let (address, mut asked) = proxy(([127, 0, 0, 1], 1).into()).await;
    let variable = format!("http://me:secret@{address}");
    let env = [("http_proxy", &*variable)];
    let rules = format!("http://a.example, http://{address}");
    let client = client(&rules, &env, Path::new("/nowhere"));
    let told = get(&client, "http://a.example/x").await.expect("answer");
    assert_eq!(told, "by proxy\n");
    let line = asked.recv().await.expect("asked");
    assert_eq!(line, "GET http://a.example/x HTTP/1.1");
}

#[tokio::test]
async fn tls_goes_through_a_proxy_and_is_between_guest_and_server() {
    let (acceptor, dir) = tls(&[b"h2"]);
    let (target, count) = server(Some(acceptor)).await;
    let (address, mut asked) = proxy(target).await;
    let variable = format!("http://me:secret@{address}");
    let env = [("HTTPS_PROXY", &*variable), BELIEVE];
    let rules = format!("https://a.example, http://{address}");
    let client = client(&rules, &env, dir.path());
    for _ in 0..2 {
        let told = get(&client, "https://a.example/").await.expect("answer");
        assert_eq!(told, "HTTP/2.0 GET https://a.example/ host None");
    }
    let line = asked.recv().await.expect("asked");
    assert_eq!(line, "CONNECT a.example:443 HTTP/1.1");
    assert_eq!(count.load(Relaxed), 1);
}

#[tokio::test]
async fn both_the_target_and_the_proxy_must_be_granted() {
    let (address, mut asked) = proxy(([127, 0, 0, 1], 1).into()).await;
    let variable = format!("http://me:secret@{address}");
    let env = [("http_proxy", &*variable)];
    for (rules, uri) in [
        (format!("http://{address}"), "http://a.example/"),
        ("http://a.example".to_owned(), "http://a.example/"),
        // By its address, whoever connects: a star does not cover it.
        (format!("*, http://{address}"), "http://169.254.169.254/"),
    ] {
        let client = client(&rules, &env, Path::new("/nowhere"));
        let error = get(&client, uri).await.expect_err(uri);
        assert!(
            matches!(
                error,
                Error::HttpRequestDenied | Error::DestinationIpProhibited
            ),
            "{error}"
        );
    }
    assert!(asked.try_recv().is_err(), "the proxy was asked");
}

/// What a server does with one connection.
enum Does {
    /// Answers so many requests, reads one more and closes.
    Answers(usize),
    /// Answers with the beginning of a body, and says no more.
    Begins,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that does this with its connections in turn.
async fn scripted(script: Vec<Does>) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listener().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        for does in script {
            let (mut stream, _) = listener.accept().await.expect("accept");
            counted.fetch_add(1, Relaxed);
            match does {
                Does::Answers(requests) => {
                    for _ in 0..requests {
                        head(&mut stream).await;
                        stream.write_all(OK).await.expect("write");
                    }
                    head(&mut stream).await;
                }
                Does::Begins => {
                    head(&mut stream).await;
                    stream
                        .write_all(OK.split_at(OK.len() - 1).0)
                        .await
                        .expect("write");
                    std::future::pending().await
                }
            }
        }
    });
    (address, count)
}

#[tokio::test]
async fn what_may_be_repeated_is_where_a_kept_connection_ends_without_an_answer() {
    let (address, count) = scripted(vec![Does::Answers(1), Does::Answers(1)]).await;
    let client = plain(&format!("http://{address}"));
    let uri = format!("http://{address}/");
    assert_eq!(get(&client, &uri).await.expect("first"), "ok");
    assert_eq!(get(&client, &uri).await.expect("repeated"), "ok");
    assert_eq!(count.load(Relaxed), 2);
}

#[tokio::test]
async fn what_may_not_be_repeated_is_not() {
    for (method, body) in [("POST", ""), ("PUT", "x")] {
        let (address, count) = scripted(vec![Does::Answers(1), Does::Answers(1)]).await;
        let client = plain(&format!("http://{address}"));
        let uri = format!("http://{address}/");
        assert_eq!(get(&client, &uri).await.expect("first"), "ok");
        let error = ask(&client, request(method, &uri, body))
            .await
            .expect_err(method);
        assert!(matches!(error, Error::ConnectionTerminated), "{error}");
        assert_eq!(count.load(Relaxed), 1);
    }
}

#[tokio::test]
async fn a_new_connection_that_ends_is_not_tried_again() {
    let (address, count) = scripted(vec![Does::Answers(0), Does::Answers(1)]).await;
    let client = plain(&format!("http://{address}"));
    let error = get(&client, &format!("http://{address}/"))
        .await
        .expect_err("ended");
    assert!(matches!(error, Error::ConnectionTerminated), "{error}");
    assert_eq!(count.load(Relaxed), 1);
}

/// What a guest that waits no longer than this is told.
async fn impatient(uri: &str, options: RequestOptions, rules: &str) -> Error {
    let client = plain(rules);
    let answered = client.send(request("GET", uri, ""), options).await;
    match answered {
        Err(error) => error,
        Ok((response, _)) => response.into_body().collect().await.expect_err("in time"),
    }
}

#[tokio::test]
async fn a_guest_waits_no_longer_than_it_said() {
    let (silent, address) = listener().await;
    let rules = format!("http://{address}, https://{address}");
    // The kernel accepts, and nobody speaks TLS.
    let options = RequestOptions {
        connect_timeout: Some(SOON),
        ..RequestOptions::default()
    };
    let error = impatient(&format!("https://{address}/"), options, &rules).await;
    assert!(matches!(error, Error::ConnectionTimeout), "{error}");
    let options = RequestOptions {
        first_byte_timeout: Some(SOON),
        ..RequestOptions::default()
    };
    let error = impatient(&format!("http://{address}/"), options, &rules).await;
    assert!(matches!(error, Error::ConnectionReadTimeout), "{error}");
    drop(silent);
    let (address, _) = scripted(vec![Does::Begins]).await;
    let options = RequestOptions {
        between_bytes_timeout: Some(SOON),
        ..RequestOptions::default()
    };
    let error = impatient(
        &format!("http://{address}/"),
        options,
        &format!("http://{address}"),
    )
    .await;
    assert!(matches!(error, Error::ConnectionReadTimeout), "{error}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_refused() {
    let (listener, address) = listener().await;
    drop(listener);
    let client = plain(&format!("http://{address}"));
    let error = get(&client, &format!("http://{address}/"))
        .await
        .expect_err("nobody");
    assert!(matches!(error, Error::ConnectionRefused), "{error}");
}
