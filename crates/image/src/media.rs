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
