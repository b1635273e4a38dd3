//! Images: their documents, and archives of them.

use std::io::{Read, Write};

use tar::{Builder, Header};
use tempfile::NamedTempFile;
use wisp_image::{ImageProgram, LocalImages};

/// Stands before the name of a part, at the beginning of a line.
const PART: &[u8] = b"=== ";

/// Parts, each after a line with its name, as an archive. So what is changed are
/// documents and layers, and not the archive.
pub fn documents(data: &[u8]) {
    let mut tar = Builder::new(Vec::new());
    let mut name = String::from("index.json");
    let mut part = Vec::new();
    let mut put = |name: &str, part: &mut Vec<u8>| {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(part.len() as u64);
        // A name that a tar cannot have is left out.
        let _ = tar.append_data(&mut header, name, part.as_slice());
        part.clear();
    };
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(PART) {
            Some(next) => {
                put(&name, &mut part);
                name = String::from_utf8_lossy(next).trim().to_owned();
            }
            None => part.extend_from_slice(line),
        }
    }
    put(&name, &mut part);
    if let Ok(bytes) = tar.into_inner() {
        archives(&bytes);
    }
}

/// A whole archive.
pub fn archives(data: &[u8]) {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("write");
    let Ok(Some(images)) = LocalImages::open(file.path()) else {
        return;
    };
    for (_, programs) in images.programs().unwrap_or_default() {
        for program in programs {
            if let ImageProgram::File { path, mut file } = program {
                assert!(!path.is_empty());
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).expect("a copy");
            }
        }
    }
}
