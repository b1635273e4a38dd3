//! etcd and an API server.

use super::{Authority, Kubectl, Server, called};
use crate::wait;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the API server may take to come up.
const UP: Duration = Duration::from_secs(120);
/// The addresses of Services.
pub const SERVICES: &str = "10.96.0.0/16";
/// Who may do everything.
const ADMINISTRATOR: &[&str] = &["system:masters"];

/// An API server as a cluster has it: RBAC, NodeRestriction, tokens of service
/// accounts. It ends when this is dropped.
#[derive(Debug)]
pub struct Control {
    url: String,
    authority: Authority,
    signer: PathBuf,
    kubectl: Kubectl,
    // In this order they end.
    api: Server,
    _etcd: Server,
}

impl Control {
    /// Starts both, with everything they have in `dir` and what they say in
    /// `logs`, and waits until they answer at `address`.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn start(dir: &Path, logs: &Path, address: Ipv4Addr) -> Result<Self> {
        let authority = Authority::new(&dir.join("certificates"))?;
        let [client, peer, port] = free_ports(address)?;
        let (client, peer) = (
            format!("http://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let etcd = Server::start(
            logs,
            "etcd",
            called("etcd")
                .arg("--data-dir")
                .arg(dir.join("etcd"))
                .args(["--listen-client-urls", &client])
                .args(["--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer])
                .args(["--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &format!("default={peer}")])
                // Nobody needs it after a crash.
                .args(["--unsafe-no-fsync", "--log-level", "warn"]),
        )?;
        let url = format!("https://{address}:{port}");
        let (signer, checker) = authority.signer()?;
        let (certificate, key) = authority.issue(
            "kube-apiserver",
            &[],
            &[
                &address.to_string(),
                "127.0.0.1",
                "10.96.0.1",
                "kubernetes.default.svc",
            ],
        )?;
        let (kubelet_certificate, kubelet_key) =
            authority.issue("kube-apiserver-kubelet-client", ADMINISTRATOR, &[])?;
        let mut api = called("kube-apiserver");
        api.arg(format!("--etcd-servers={client}"))
            .arg(format!("--bind-address={address}"))
            .arg(format!("--advertise-address={address}"))
            .arg(format!("--secure-port={port}"))
            .arg(format!("--service-cluster-ip-range={SERVICES}"))
            // Names of nodes are nobody's here.
            .arg("--kubelet-preferred-address-types=InternalIP")
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .args(["--authorization-mode=Node,RBAC", "--allow-privileged=true"])
            .args([
                "--enable-admission-plugins=NodeRestriction",
                "--profiling=false",
            ]);
        for (flag, path) in [
            ("tls-cert-file", &certificate),
            ("tls-private-key-file", &key),
            ("client-ca-file", &authority.certificate()),
            ("service-account-key-file", &checker),
            ("service-account-signing-key-file", &signer),
            ("kubelet-client-certificate", &kubelet_certificate),
            ("kubelet-client-key", &kubelet_key),
            ("kubelet-certificate-authority", &authority.certificate()),
        ] {
            api.arg(format!("--{flag}={}", path.display()));
        }
        let mut api = Server::start(logs, "kube-apiserver", &mut api)?;
        let kubectl = Kubectl::new(&authority.kubeconfig(&url, "administrator", ADMINISTRATOR)?);
        api.until("the API server is ready", UP, || {
            let said = kubectl.run(&["get", "--raw", "/readyz"], "").ok()?;
            if said.code != 0 {
                std::thread::sleep(Duration::from_millis(500));
            }
            (said.code == 0).then_some(())
        })?;
        Ok(Self {
            url,
            authority,
            signer,
            kubectl,
            api,
            _etcd: etcd,
        })
    }

    /// kubectl of who may do everything.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// kubectl of who has a token.
    ///
    /// # Errors
    /// When the kubeconfig cannot be written.
    pub fn with_token(&self, token: &str) -> Result<Kubectl> {
        let path = self.authority.kubeconfig_of_token(&self.url, token)?;
        Ok(Kubectl::new(&path))
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Who is who.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The key that signs tokens.
    pub fn signer(&self) -> &Path {
        &self.signer
    }

    /// The last lines of the API server's log.
    pub fn last(&self, count: usize) -> String {
        self.api.last(count)
    }

    /// Waits for a kind of resources to be served, such as what all pods need.
    ///
    /// # Errors
    /// When it is not there in time.
    pub fn until_there(&self, arguments: &[&str]) -> Result<()> {
        wait::until(UP, || {
            let all = [&["get"], arguments].concat();
            self.kubectl.ok(&all).ok()
        })
        .with_context(|| format!("{arguments:?} is not there:\n{}", self.last(20)))
        .map(drop)
    }
}

/// Ports that nobody listens at now.
fn free_ports<const N: usize>(address: Ipv4Addr) -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind((address, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
