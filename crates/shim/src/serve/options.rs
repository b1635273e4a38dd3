//! Runtime options of a Create request.

use std::path::PathBuf;

use anyhow::bail;
use containerd_shim::protos::protobuf::CodedInputStream;
use containerd_shim::protos::protobuf::rt::WireType;
use containerd_shim::protos::protobuf::well_known_types::any::Any;

/// The config file that the options name, if any.
///
/// CRI and `ctr --runtime-config-path` send `runtimeoptions.v1.Options`
/// (containerd, `api/types/runtimeoptions/v1/api.proto`): `type_url = 1`,
/// `config_path = 2`, `config_body = 3`. Options of other types, such as
/// runc's, which `ctr` sends when asked for one of them, have nothing for wisp.
///
/// # Errors
/// When the message is malformed or the path not absolute.
pub fn config_path(options: Option<&Any>) -> anyhow::Result<Option<PathBuf>> {
    let Some(options) = options else {
        return Ok(None);
    };
    let name = options.type_url.rsplit('/').next().unwrap_or_default();
    if name != "runtimeoptions.v1.Options" {
        return Ok(None);
    }
    let mut path = String::new();
    let mut input = CodedInputStream::from_bytes(&options.value);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match (tag >> 3, WireType::new(tag & 7)) {
            (2, Some(WireType::LengthDelimited)) => path = input.read_string()?,
            (_, Some(kind)) => input.skip_field(kind)?,
            (_, None) => bail!("runtime options: malformed field {tag}"),
        }
    }
    if path.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(path);
    if path.is_relative() {
        bail!(
            "runtime options: config_path {} must be absolute",
            path.display()
        );
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(name: &str, value: &[u8]) -> Any {
        Any {
            type_url: name.into(),
            value: value.to_vec(),
            ..Any::default()
        }
    }

    #[test]
    fn the_config_path_is_found() {
        let any = options(
            "runtimeoptions.v1.Options",
            b"\x0a\x01t\x12\x06/w.tom\x1a\x01b",
        );
        assert_eq!(
            config_path(Some(&any)).expect("path"),
            Some(PathBuf::from("/w.tom"))
        );
    }

    #[test]
    fn other_options_and_none_are_ignored() {
        let runc = options("containerd.runc.v1.Options", b"\x12\x06/w.tom");
        assert_eq!(config_path(Some(&runc)).expect("none"), None);
        let empty = options("runtimeoptions.v1.Options", b"");
        assert_eq!(config_path(Some(&empty)).expect("none"), None);
        assert_eq!(config_path(None).expect("none"), None);
    }

    #[test]
    fn malformed_and_relative_are_errors() {
        for value in [&b"\x12\xff"[..], b"\x07", b"\x12\x01w"] {
            let any = options("runtimeoptions.v1.Options", value);
            assert!(config_path(Some(&any)).is_err(), "{value:?}");
        }
    }
}
