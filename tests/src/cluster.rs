//! A stand-in for an API server: HTTP over TLS, a token, one node, its events
//! and a DaemonSet. It is as strict as the real one with what it understands,
//! and knows no other paths.

use crate::command;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

/// The name of the node.
pub const NODE: &str = "node-1.example";
const NODE_PATH: &str = "/api/v1/nodes/node-1.example";
const EVENTS_PATH: &str = "/api/v1/namespaces/default/events";
const SET_PATH: &str = "/apis/apps/v1/namespaces/wisp-system/daemonsets/wisp-node-installer";

/// What the API server has.
#[derive(Debug)]
pub struct Objects {
    /// The node's metadata.
    pub node: Value,
    /// Events, oldest first.
    pub events: Vec<Value>,
    /// The DaemonSet's metadata, while there is one.
    pub daemon_set: Option<Value>,
    /// The token that is taken.
    pub token: String,
    /// How many calls were refused for their token.
    pub refused: usize,
}

/// The server. It ends with the test's process.
#[derive(Debug)]
pub struct Cluster {
    objects: Arc<Mutex<Objects>>,
    port: u16,
    credentials: PathBuf,
}

impl Cluster {
    /// Starts it, with a certificate and a token in a directory below `dir`.
    ///
    /// # Errors
    /// When there is no openssl, or no port.
    pub fn start(dir: &Path) -> Result<Self> {
        let credentials = dir.join("credentials");
        fs::create_dir_all(&credentials)?;
        let acceptor = acceptor(&credentials)?;
        let objects = Arc::new(Mutex::new(Objects {
            node: json!({
                "name": NODE,
                "uid": "5f0d9c1e-0000-4000-8000-000000000001",
                "labels": { "kubernetes.io/os": "linux" },
                "annotations": { "example.com/other": "stays" },
            }),
            events: Vec::new(),
            daemon_set: Some(json!({ "name": "wisp-node-installer" })),
            token: "a-token".to_owned(),
            refused: 0,
        }));
        fs::write(credentials.join("token"), "a-token\n")?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let served = Arc::clone(&objects);
        std::thread::spawn(move || runtime.block_on(serve(listener, acceptor, served)));
        Ok(Self {
            objects,
            port,
            credentials,
        })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The directory with the token and the authority's certificate.
    pub fn credentials(&self) -> &Path {
        &self.credentials
    }

    /// To look at what it has, or to change it.
    pub fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A label of the node.
    pub fn label(&self, name: &str) -> Option<String> {
        let text = &self.objects().node["labels"][name];
        text.as_str().map(str::to_owned)
    }

    /// An annotation of the node, which is JSON.
    pub fn annotation(&self, name: &str) -> Option<Value> {
        let objects = self.objects();
        let text = objects.node["annotations"][name].as_str()?;
        serde_json::from_str(text).ok()
    }

    /// The messages of events with this reason.
    pub fn events(&self, reason: &str) -> Vec<String> {
        let objects = self.objects();
        let of_reason = objects.events.iter().filter(|e| e["reason"] == reason);
        of_reason
            .filter_map(|event| event["message"].as_str().map(str::to_owned))
            .collect()
    }
}

/// A certificate for 127.0.0.1, which is its own authority.
fn acceptor(dir: &Path) -> Result<TlsAcceptor> {
    let config = dir.join("openssl.cnf");
    fs::write(
        &config,
        "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = more\n\
         [name]\nCN = stand-in\n\
         [more]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n",
    )?;
    let (key, certificate) = (dir.join("key"), dir.join("ca.crt"));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-config"])
        .arg(&config)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    let made = command::run(&mut openssl, Vec::new(), Duration::from_secs(60))?;
    ensure!(made.code == 0, "{openssl:?}: {}", made.err());
    let certificate = CertificateDer::from_pem_file(&certificate).context("the certificate")?;
    let key = PrivateKeyDer::from_pem_file(&key).context("the key")?;
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(
    listener: std::net::TcpListener,
    acceptor: TlsAcceptor,
    objects: Arc<Mutex<Objects>>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, objects) = (acceptor.clone(), Arc::clone(&objects));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(|request| {
                let objects = Arc::clone(&objects);
                async move { Ok::<_, Infallible>(answer(request, &objects).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

async fn answer(request: Request<Incoming>, objects: &Mutex<Objects>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let header = |name: HeaderName| {
        let value = parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
    let (code, value) = if header(AUTHORIZATION) != format!("Bearer {}", objects.token) {
        objects.refused += 1;
        (401, status(401, "Unauthorized"))
    } else {
        let sent = Sent {
            method: &parts.method,
            path: parts.uri.path(),
            dry: parts
                .uri
                .query()
                .is_some_and(|query| query.contains("dryRun=All")),
            accept: header(ACCEPT),
            kind: header(CONTENT_TYPE),
            body: body
                .ok()
                .and_then(|body| serde_json::from_slice(&body).ok())
                .unwrap_or_default(),
        };
        handle(&sent, &mut objects).unwrap_or_else(|(code, message)| (code, status(code, &message)))
    };
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    response
}

struct Sent<'r> {
    method: &'r Method,
    path: &'r str,
    /// Whether nothing is to become of it.
    dry: bool,
    accept: String,
    kind: String,
    body: Value,
}

fn status(code: u16, message: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure",
            "code": code, "message": message })
}

type Answer = Result<(u16, Value), (u16, String)>;

fn handle(sent: &Sent<'_>, objects: &mut Objects) -> Answer {
    let partial = |metadata: &Value| {
        json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": metadata })
    };
    let bad = |message: &str| Err((400, message.to_owned()));
    match (sent.method, sent.path) {
        (&Method::GET, NODE_PATH) => {
            if !sent.accept.contains("as=PartialObjectMetadata") {
                return bad("the whole object is large");
            }
            Ok((200, partial(&objects.node)))
        }
        (&Method::PATCH, NODE_PATH) => {
            if sent.kind != "application/merge-patch+json" {
                return Err((415, format!("{} is no patch", sent.kind)));
            }
            let patch = sent.body["metadata"].clone();
            let known = ["labels", "annotations"];
            let strict = patch
                .as_object()
                .is_some_and(|patch| patch.keys().all(|key| known.contains(&key.as_str())));
            if !strict {
                return bad("only labels and annotations are for an installer");
            }
            let mut patched = objects.node.clone();
            merge(&mut patched, patch);
            if !sent.dry {
                objects.node = patched.clone();
            }
            Ok((200, json!({ "metadata": patched })))
        }
        (&Method::POST, EVENTS_PATH) => {
            let event = &sent.body;
            let text = |name: &str| event[name].as_str().unwrap_or_default();
            let object = &event["involvedObject"];
            let valid = event["metadata"]["namespace"] == "default"
                && object["kind"] == "Node"
                && object["name"] == objects.node["name"]
                && object["uid"] == objects.node["uid"]
                && ["Normal", "Warning"].contains(&text("type"))
                && (1..=1024).contains(&text("message").len())
                && (1..=128).contains(&text("reason").len())
                && text("lastTimestamp").ends_with('Z');
            if !valid {
                return Err((422, format!("no valid event: {event}")));
            }
            objects.events.push(event.clone());
            Ok((201, event.clone()))
        }
        (&Method::GET, SET_PATH) => match &objects.daemon_set {
            Some(set) => Ok((200, partial(set))),
            None => Err((404, "daemonsets.apps not found".to_owned())),
        },
        (&Method::DELETE, SET_PATH) => match &mut objects.daemon_set {
            Some(set) if sent.body["propagationPolicy"] == "Foreground" => {
                set["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                Ok((200, partial(set)))
            }
            Some(_) => bad("its pods would outlive it"),
            None => Err((404, "daemonsets.apps not found".to_owned())),
        },
        (method, path) => Err((404, format!("{method} {path}"))),
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            if let Some(object) = target.as_object_mut() {
                object.remove(&name);
            }
        } else {
            merge(&mut target[name], value);
        }
    }
}
