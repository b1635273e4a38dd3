//! How containerd asks for a daemon and how it wants the answer, which differ
//! by version: 1.6 reads a bare address, 1.7 JSON for task API 2, 2.0 to 2.2
//! JSON for task API 3, and 2.3 speaks protobuf both ways.
//!
//! Source: containerd, `docs/runtime-v2.md` and `runtime/v2/shim/util.go` of
//! those versions.

use std::io::Read;

use anyhow::{Context, bail};
use containerd_shim::bootstrap::{BootstrapParams, BootstrapResult};
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::{Flags, StartOpts};

use crate::containerd_version;

/// containerd itself reads no more (bytes).
const MAX_INPUT: u64 = 10 << 20;

/// In what form the answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The address alone; task API 2 is implied.
    Bare,
    /// JSON naming the task API's version.
    Json(u32),
    /// A `BootstrapResult` for task API 3.
    Protobuf,
}

/// Reads what containerd passes to `start`: flags, environment and stdin.
///
/// # Errors
/// When the parameters are for another shim or lack containerd's addresses.
pub fn read(flags: &Flags) -> anyhow::Result<(StartOpts, Answer)> {
    let mut input = Vec::new();
    std::io::stdin()
        .take(MAX_INPUT)
        .read_to_end(&mut input)
        .context("read parameters from stdin")?;
    if let Some(params) = bootstrap_params(&input, flags)? {
        let opts = StartOpts::from(params);
        require_address(&opts)?;
        return Ok((opts, Answer::Protobuf));
    }
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let opts = StartOpts {
        id: flags.id.clone(),
        namespace: flags.namespace.clone(),
        publish_binary: flags.publish_binary.clone(),
        address: flags.address.clone(),
        ttrpc_address: variable("TTRPC_ADDRESS"),
        debug: flags.debug,
        extensions: Any::parse_from_bytes(&input)
            .ok()
            .filter(|any| !any.type_url.is_empty())
            .into_iter()
            .collect(),
        ..StartOpts::default()
    };
    require_address(&opts)?;
    // 1.7 brought this variable; its value is 2 also in versions that know 3.
    let answer = if std::env::var_os("MAX_SHIM_VERSION").is_none() {
        Answer::Bare
    } else if containerd_version::major(&opts.publish_binary) >= Some(2) {
        Answer::Json(3)
    } else {
        Answer::Json(2)
    };
    Ok((opts, answer))
}

fn require_address(opts: &StartOpts) -> anyhow::Result<()> {
    if opts.id.is_empty() || opts.namespace.is_empty() {
        bail!("-id and -namespace are required");
    }
    if opts.ttrpc_address.is_empty() {
        bail!("containerd's ttrpc address is missing (variable TTRPC_ADDRESS)");
    }
    Ok(())
}

/// `input` as containerd 2.3's parameters. Older versions send the runtime
/// options as an `Any`, which decodes as parameters too: type URL as the id,
/// value as the namespace. Only a match with the flags makes it parameters.
fn bootstrap_params(input: &[u8], flags: &Flags) -> anyhow::Result<Option<BootstrapParams>> {
    let Ok(params) = BootstrapParams::parse_from_bytes(input) else {
        return Ok(None);
    };
    if params.instance_id == flags.id && params.namespace == flags.namespace {
        return Ok((!input.is_empty()).then_some(params));
    }
    if params.containerd_ttrpc_address.is_empty() {
        return Ok(None);
    }
    bail!(
        "parameters on stdin are for {}/{}, the flags for {}/{}",
        params.namespace,
        params.instance_id,
        flags.namespace,
        flags.id
    )
}

impl Answer {
    /// The bytes to print for a daemon that listens at `address`.
    ///
    /// # Errors
    /// When the message cannot be encoded.
    pub fn encode(self, address: &str) -> anyhow::Result<Vec<u8>> {
        Ok(match self {
            Self::Bare => address.as_bytes().to_vec(),
            Self::Json(version) => serde_json::to_vec(&serde_json::json!({
                "version": version, "address": address, "protocol": "ttrpc",
            }))?,
            Self::Protobuf => BootstrapResult {
                version: 3,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..BootstrapResult::default()
            }
            .write_to_bytes()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            id: "c1".into(),
            namespace: "k8s.io".into(),
            ..Flags::default()
        }
    }

    fn params(id: &str) -> BootstrapParams {
        BootstrapParams {
            instance_id: id.into(),
            namespace: "k8s.io".into(),
            containerd_ttrpc_address: "/run/c.sock.ttrpc".into(),
            ..BootstrapParams::default()
        }
    }

    #[test]
    fn parameters_of_this_shim_are_taken() {
        let input = params("c1").write_to_bytes().expect("encode");
        assert!(bootstrap_params(&input, &flags()).expect("read").is_some());
    }

    #[test]
    fn parameters_of_another_shim_are_an_error() {
        let input = params("other").write_to_bytes().expect("encode");
        let error = bootstrap_params(&input, &flags()).expect_err("refused");
        assert!(error.to_string().contains("other"), "{error}");
    }

    #[test]
    fn runtime_options_are_not_mistaken_for_parameters() {
        let any = Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value: vec![1, 2, 3],
            ..Any::default()
        };
        let input = any.write_to_bytes().expect("encode");
        assert!(bootstrap_params(&input, &flags()).expect("read").is_none());
        assert!(bootstrap_params(&[], &flags()).expect("read").is_none());
    }

    #[test]
    fn each_version_gets_its_form() {
        let address = "unix:///run/x";
        assert_eq!(
            Answer::Bare.encode(address).expect("bare"),
            address.as_bytes()
        );
        let json: serde_json::Value =
            serde_json::from_slice(&Answer::Json(3).encode(address).expect("json")).expect("json");
        assert_eq!(json["version"], 3);
        assert_eq!(json["address"], address);
        let bytes = Answer::Protobuf.encode(address).expect("protobuf");
        let result = BootstrapResult::parse_from_bytes(&bytes).expect("decode");
        assert_eq!((result.version, result.address.as_str()), (3, address));
    }
}
