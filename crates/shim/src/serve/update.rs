//! Update: new limits for a container that runs.

use wisp_container::LinuxResources;

use super::error::TaskError;
use super::task::Task;

impl Task {
    /// Sets the limits in `resources`: OCI `LinuxResources` as JSON, as
    /// containerd sends them.
    ///
    /// # Errors
    /// When it is not that, or a limit is refused; then none has changed.
    pub fn update(&self, resources: &[u8]) -> Result<(), TaskError> {
        let resources: LinuxResources = serde_json::from_slice(resources)
            .map_err(|error| TaskError::Invalid(format!("resources: {error}")))?;
        if self.process().exit().is_some() {
            return Err(self.refuse("update"));
        }
        Ok(self.cgroup.update(&resources)?)
    }
}
