//! Who is who: one authority of a cluster, and certificates of it.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The authority, whose certificate and whose servers' and clients' are files of
/// one directory.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When its certificate cannot be made or written.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "wisp-tests");
        let certificate = params.self_signed(&key)?;
        fs::write(dir.join("ca.crt"), certificate.pem())?;
        Ok(Self {
            dir: dir.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A certificate and its key, for a server with these names or a client that
    /// is `name` of `groups`, as Kubernetes reads subjects.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn issue(
        &self,
        name: &str,
        groups: &[&str],
        addresses: &[&str],
    ) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = addresses.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).context("the names of a certificate")?;
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer)?;
        let file = name.replace([':', '/'], "-");
        let certificates = self.dir.join(&file).with_extension("crt");
        let keys = self.dir.join(&file).with_extension("key");
        fs::write(&certificates, certificate.pem())?;
        fs::write(&keys, key.serialize_pem())?;
        Ok((certificates, keys))
    }

    /// A kubeconfig of a client that is `name` of `groups`.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn kubeconfig(&self, url: &str, name: &str, groups: &[&str]) -> Result<PathBuf> {
        let (certificate, key) = self.issue(name, groups, &[])?;
        let path = certificate.with_extension("kubeconfig");
        self.write(
            url,
            json!({ "client-certificate": certificate, "client-key": key }),
            path,
        )
    }

    /// A kubeconfig of who has a token.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_of_token(&self, url: &str, token: &str) -> Result<PathBuf> {
        // The end of it is its signature.
        let end: String = token.chars().rev().take(16).collect();
        let path = self.dir.join(format!("token-{end}.kubeconfig"));
        self.write(url, json!({ "token": token }), path)
    }

    fn write(&self, url: &str, user: Value, path: PathBuf) -> Result<PathBuf> {
        // JSON is YAML.
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": {
                "server": url, "certificate-authority": self.certificate(),
            }}],
            "users": [{ "name": "test", "user": user }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        });
        fs::write(&path, text.to_string())?;
        Ok(path)
    }

    /// A key that signs tokens of service accounts, and the one that checks them.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn signer(&self) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let (private, public) = (self.dir.join("tokens.key"), self.dir.join("tokens.pub"));
        fs::write(&private, key.serialize_pem())?;
        fs::write(&public, key.public_key_pem())?;
        Ok((private, public))
    }
}
