//! Where the parts of images are.

use std::io::Read;

use crate::error::ImageError;

/// A place that has the parts of images by their digests.
pub(crate) trait Blobs {
    /// A manifest, index or configuration of `image`; none if it is not there.
    fn document(&self, image: &str, digest: &str) -> Result<Option<Vec<u8>>, ImageError>;

    /// The bytes of a layer, from their beginning.
    fn layer(&self, digest: &str) -> Result<Box<dyn Read>, ImageError>;
}
