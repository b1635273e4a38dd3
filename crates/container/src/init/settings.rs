//! The node's settings as they were when a container was made. What is executed
//! in it later has what the container has, whatever the file says by then, and even
//! if it cannot be understood any more.

use std::fs;
use std::io;

use wisp_config::{Config, Text};

use crate::bundle::Bundle;
use crate::control::CreateRequest;
use crate::error::ContainerError;

/// The settings, and the file they are from if there is one.
pub struct Settings {
    pub config: Config,
    text: Option<Text>,
}

/// Those for a new container.
///
/// # Errors
/// A file that cannot be read or understood.
pub fn load(request: &CreateRequest) -> Result<Settings, ContainerError> {
    let text = Text::load(request.config.as_deref())?;
    let config = text.as_ref().map(Text::parse).transpose()?;
    Ok(Settings {
        config: config.unwrap_or_default(),
        text,
    })
}

impl Settings {
    /// Keeps them for what is executed in the container of `bundle`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep(&self, bundle: &Bundle) -> Result<(), ContainerError> {
        let Some(text) = &self.text else {
            return Ok(());
        };
        bundle.create_dir(&bundle.own())?;
        let path = bundle.settings();
        let json = serde_json::to_vec(text).map_err(|error| io::Error::other(error.to_string()));
        json.and_then(|json| fs::write(&path, json))
            .map_err(|source| ContainerError::Io {
                what: "write",
                path,
                source,
            })
    }
}

/// Those that the container of `bundle` was made by.
///
/// # Errors
/// When they cannot be read.
pub fn kept(bundle: &Bundle) -> Result<Config, ContainerError> {
    let path = bundle.settings();
    let failed = |source: io::Error| ContainerError::Io {
        what: "read",
        path: path.clone(),
        source,
    };
    match fs::read(&path) {
        Ok(json) => {
            let text: Text = serde_json::from_slice(&json).map_err(|error| failed(error.into()))?;
            Ok(text.parse()?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
        Err(error) => Err(failed(error)),
    }
}
