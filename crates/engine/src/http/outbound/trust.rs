//! Whose certificates are believed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::exit::complain;
use crate::setup::HostPreopen;

/// The variable that names the file to believe, and no other.
const VARIABLE: &str = "SSL_CERT_FILE";

/// Where distributions have theirs.
const USUAL: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The most such a file may have, in bytes. All of the public web's are a
/// fifteenth of it.
const MOST: u64 = 4 << 20;

/// The files where certificates may be, as the guest sees them.
pub struct Trust {
    named: Option<String>,
    preopens: Vec<HostPreopen>,
}

impl Trust {
    /// What the container's environment and files say.
    pub fn new(env: &[(String, String)], preopens: &[HostPreopen]) -> Self {
        Self {
            named: env
                .iter()
                .find(|(name, value)| name == VARIABLE && !value.is_empty())
                .map(|(_, value)| value.clone()),
            preopens: preopens.to_vec(),
        }
    }

    /// The roots to believe: of the file that `SSL_CERT_FILE` names, else of
    /// the first that is where distributions have one, else the public web's,
    /// which are part of this program: an image need not have any.
    ///
    /// # Errors
    /// What is wrong with the file that is named. Nothing else is believed in
    /// its place.
    pub fn roots(&self) -> Result<RootCertStore, String> {
        if let Some(path) = &self.named {
            return self
                .read(path)
                .and_then(|found| found.ok_or_else(|| "the guest sees no such file".to_owned()))
                .map_err(|problem| format!("{VARIABLE}={path}: {problem}"));
        }
        for path in USUAL {
            match self.read(path) {
                Ok(None) => {}
                Ok(Some(roots)) => return Ok(roots),
                Err(problem) => {
                    complain(&format!("{path}: {problem}; it is not believed"));
                }
            }
        }
        Ok(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.into(),
        })
    }

    /// The certificates in a file of the guest; `None` where there is none.
    fn read(&self, path: &str) -> Result<Option<RootCertStore>, String> {
        let Some(file) = self.open(path)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        file.take(MOST + 1)
            .read_to_end(&mut text)
            .map_err(|error| error.to_string())?;
        if text.len() as u64 > MOST {
            return Err(format!("it has more than {} MiB", MOST >> 20));
        }
        let mut roots = RootCertStore::empty();
        let found = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
        // Some roots that distributions have are too odd for this library.
        let (taken, _) = roots.add_parsable_certificates(found);
        match taken {
            0 => Err("it has no certificate that can be read, in PEM".to_owned()),
            _ => Ok(Some(roots)),
        }
    }

    /// Opens a file of the guest by one of its directories, out of which no
    /// link leads.
    fn open(&self, path: &str) -> Result<Option<File>, String> {
        let found = self
            .preopens
            .iter()
            .filter_map(|preopen| {
                let rest = Path::new(path).strip_prefix(&preopen.guest).ok()?;
                Some((preopen, rest))
            })
            .max_by_key(|(preopen, _)| preopen.guest.len());
        let Some((preopen, rest)) = found else {
            return Ok(None);
        };
        let flags = OFlag::O_CLOEXEC | OFlag::O_PATH | OFlag::O_DIRECTORY;
        let how = OpenHow::new()
            // Whatever it is, opening it must not wait.
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let file = open(&preopen.host, flags, Mode::empty())
            .and_then(|directory| openat2(directory, rest, how));
        let file = match file {
            Ok(file) => File::from(file),
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        match file.metadata() {
            Ok(found) if found.is_file() => Ok(Some(file)),
            Ok(_) => Err("it is not a file".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn certificate() -> String {
        let names = ["a.example".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("certificate");
        made.cert.pem()
    }

    fn trust(root: &Path, named: Option<&str>) -> Trust {
        let env: Vec<_> = named
            .map(|path| (VARIABLE.to_owned(), path.to_owned()))
            .into_iter()
            .collect();
        let preopen = HostPreopen {
            host: root.into(),
            guest: "/".into(),
            writable: false,
        };
        Trust::new(&env, &[preopen])
    }

    #[test]
    fn an_image_without_certificates_believes_the_public_webs() {
        let dir = tempfile::tempdir().expect("dir");
        let roots = trust(dir.path(), None).roots().expect("roots");
        assert_eq!(roots.len(), webpki_roots::TLS_SERVER_ROOTS.len());
    }

    #[test]
    fn an_images_certificates_are_believed_and_no_others() {
        let dir = tempfile::tempdir().expect("dir");
        fs::create_dir_all(dir.path().join("etc/ssl/certs")).expect("dir");
        let all = format!("{}# one more\n{}", certificate(), certificate());
        fs::write(dir.path().join("etc/ssl/all.crt"), all).expect("write");
        // Absolute links are meant within the image.
        let link = dir.path().join("etc/ssl/certs/ca-certificates.crt");
        symlink("/etc/ssl/all.crt", link).expect("link");
        assert_eq!(trust(dir.path(), None).roots().expect("roots").len(), 2);
    }

    #[test]
    fn a_file_that_is_named_is_believed_or_nothing_is() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("ca.pem"), certificate()).expect("write");
        fs::write(dir.path().join("empty.pem"), "no certificate\n").expect("write");
        let of = |path| trust(dir.path(), Some(path)).roots();
        assert_eq!(of("/ca.pem").expect("roots").len(), 1);
        for path in ["/empty.pem", "/none.pem", "/", "ca.pem", "/../../etc/hosts"] {
            let error = of(path).expect_err(path);
            assert!(error.starts_with("SSL_CERT_FILE="), "{error}");
        }
    }
}
