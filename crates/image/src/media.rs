//! Media types of what is in images.

/// A list of images for several platforms.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// One image.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// How to run an image.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Files.
pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// Docker's names for a list and an image.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's name for how to run an image.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// What Docker's names for files begin with.
const DOCKER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// What names for files begin with that some registries may not pass on.
const RESTRICTED_TAR: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";

/// Whether a layer has files, compressed or not.
pub(crate) fn is_files(media_type: &str) -> bool {
    [TAR, DOCKER_TAR, RESTRICTED_TAR].into_iter().any(|files| {
        media_type
            .strip_prefix(files)
            .is_some_and(|compression| !compression.starts_with(|c: char| c.is_alphanumeric()))
    })
}

/// A layer that is a Wasm file, as the CNCF's artifact guidance names it.
pub const WASM: &str = "application/wasm";
/// The same as Spin and wasm-to-oci name it.
pub const WASM_CONTENT: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// A component, as runwasi names it.
pub const WASM_COMPONENT: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
/// All media types by which a layer is taken for a Wasm file.
pub const WASM_LAYERS: [&str; 3] = [WASM, WASM_CONTENT, WASM_COMPONENT];

/// Annotation of a layer: its file name.
pub const TITLE: &str = "org.opencontainers.image.title";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_with_files_are_told_from_others() {
        for suffix in ["", "+gzip", "+zstd"] {
            assert!(is_files(&format!("{TAR}{suffix}")));
        }
        assert!(is_files(
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        ));
        for other in WASM_LAYERS.into_iter().chain([MANIFEST, CONFIG, ""]) {
            assert!(!is_files(other), "{other}");
        }
    }
}
