//! The node's settings.

use std::path::Path;

use wisp_config::Config;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Config::parse(Path::new("/etc/wisp/config.toml"), text) {
        Ok(config) => {
            assert!(config.cache.dir.is_absolute() && config.cache.run_dir.is_absolute());
            let _ = (config.cache.max_size(), config.cache.other_versions());
            drop(config.policy());
        }
        // Which file, at least; the line where the error has one.
        Err(error) => assert!(error.to_string().contains("/etc/wisp/config.toml")),
    }
}
