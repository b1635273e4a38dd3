//! The documents of an image, as far as they tell where its layers are.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::media;
use crate::pack::Platform as HostPlatform;

/// What a blob is and where.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub platform: Option<Platform>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    pub config: Descriptor,
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
}

/// What an image's target or an entry of an index can be.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
    /// Something that lists no layers we know how to read.
    Other,
}

impl Document {
    /// Reads a document of the media type its descriptor claims.
    pub(crate) fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, String> {
        let result = match media_type {
            media::INDEX | media::DOCKER_INDEX => serde_json::from_slice(bytes).map(Self::Index),
            media::MANIFEST | media::DOCKER_MANIFEST => {
                serde_json::from_slice(bytes).map(Self::Manifest)
            }
            _ => return Ok(Self::Other),
        };
        result.map_err(|error| error.to_string())
    }
}

/// Sorts the entries of an index: first those for this machine, then those for
/// Wasm, those for nothing in particular, and the rest.
pub(crate) fn by_fitness(mut entries: Vec<Descriptor>) -> Vec<Descriptor> {
    let host = HostPlatform::host();
    entries.sort_by_key(|entry| match &entry.platform {
        Some(p) if p.os == host.os && p.architecture == host.architecture => 0,
        Some(p) if p.architecture.starts_with("wasm") || p.os.starts_with("wasi") => 1,
        None => 2,
        Some(_) => 3,
    });
    entries
}

/// Go writes `null` for a list or map that is empty.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_for_this_machine_come_first_then_those_for_wasm() {
        let host = HostPlatform::host();
        let index = format!(
            r#"{{"manifests":[
              {{"digest":"other","platform":{{"os":"plan9","architecture":"mips"}}}},
              {{"digest":"none"}},
              {{"digest":"wasm","platform":{{"os":"wasi","architecture":"wasm"}}}},
              {{"digest":"host","platform":{{"os":"linux","architecture":"{}"}}}}]}}"#,
            host.architecture
        );
        let Ok(Document::Index(index)) = Document::parse(media::INDEX, index.as_bytes()) else {
            panic!("an index")
        };
        let order: Vec<String> = by_fitness(index.manifests)
            .into_iter()
            .map(|entry| entry.digest)
            .collect();
        assert_eq!(order, ["host", "wasm", "none", "other"]);
    }

    #[test]
    fn empty_lists_may_be_null_or_missing() {
        for text in [r#"{"layers":null}"#, "{}"] {
            let document = Document::parse(media::MANIFEST, text.as_bytes());
            assert!(matches!(document, Ok(Document::Manifest(m)) if m.layers.is_empty()));
        }
    }

    #[test]
    fn documents_that_make_no_sense_are_errors() {
        for text in ["", "[]x", r#"{"layers":[{}]}"#, r#"{"layers":7}"#] {
            assert!(
                Document::parse(media::MANIFEST, text.as_bytes()).is_err(),
                "{text}"
            );
        }
        let other = Document::parse("application/octet-stream", b"");
        assert!(matches!(other, Ok(Document::Other)));
    }
}
