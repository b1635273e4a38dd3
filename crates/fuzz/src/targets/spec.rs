//! A container's `config.json` (OCI runtime spec), as far as a guest's takes it.

use wisp_config::Config;
use wisp_container::guest_of;

pub fn run(data: &[u8]) {
    let Ok(spec) = serde_json::from_slice(data) else {
        return;
    };
    // What it asks for is read; nothing is done.
    if let Err(error) = guest_of(&spec, "default", &Config::default()) {
        assert!(!error.to_string().is_empty());
    }
}
