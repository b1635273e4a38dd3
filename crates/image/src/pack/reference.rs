use super::PackError;

/// Checks that `reference` can name an image. What it means is containerd's
/// business: it is not completed with a registry or a tag.
///
/// # Errors
/// A name that is empty or has spaces or control characters.
pub fn check_reference(reference: &str) -> Result<(), PackError> {
    let wrong = |c: char| c.is_whitespace() || c.is_control();
    if reference.is_empty() || reference.len() > 4096 || reference.contains(wrong) {
        return Err(PackError::Reference(reference.into()));
    }
    Ok(())
}

/// Whether `reference` has a tag, without which `docker load` takes no name.
pub(super) fn has_tag(reference: &str) -> bool {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.contains(':') && !reference.contains('@')
}
