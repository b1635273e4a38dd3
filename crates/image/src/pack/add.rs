use std::path::PathBuf;
use std::str::FromStr;

use super::PackError;

/// A file or directory to be put into an image: `SOURCE:/DESTINATION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    pub source: PathBuf,
    /// Path in the image without a leading `/`, its parts neither empty nor
    /// `.` nor `..`. Empty for `/` itself.
    pub destination: String,
    /// Whether the destination was written with a `/` at its end: a directory
    /// into which a file goes by its own name.
    pub into: bool,
}

impl FromStr for Addition {
    type Err = PackError;

    fn from_str(text: &str) -> Result<Self, PackError> {
        // The last colon, so that the source may have some.
        let (source, destination) = text
            .rsplit_once(':')
            .filter(|(source, _)| !source.is_empty())
            .ok_or_else(|| PackError::Addition(text.into()))?;
        let refuse = |problem| PackError::Destination {
            text: text.into(),
            problem,
        };
        let path = destination
            .strip_prefix('/')
            .ok_or_else(|| refuse("the destination must begin with /"))?;
        if path.contains('\0') {
            return Err(refuse("the destination has a NUL in it"));
        }
        let parts: Vec<&str> = path
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        if parts.contains(&"..") {
            return Err(refuse("the destination must not have .. in it"));
        }
        if parts.iter().any(|part| part.starts_with(".wh.")) {
            return Err(refuse(
                "a name that begins with .wh. would delete a file instead",
            ));
        }
        Ok(Self {
            source: source.into(),
            destination: parts.join("/"),
            into: path.is_empty() || path.ends_with('/'),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_and_destination_are_told_apart() {
        let cases = [
            ("a:/b", "a", "b", false),
            ("a:/b/", "a", "b", true),
            ("a:/", "a", "", true),
            ("dir:with:colons:/x//./y", "dir:with:colons", "x/y", false),
        ];
        for (text, source, destination, into) in cases {
            let addition: Addition = text.parse().expect(text);
            assert_eq!(addition.source, PathBuf::from(source));
            assert_eq!(addition.destination, destination);
            assert_eq!(addition.into, into);
        }
    }

    #[test]
    fn a_destination_outside_of_the_image_is_refused() {
        for text in [
            "", "a", ":/b", "a:b", "a:", "a:/../b", "a:/b/..", "a:/.wh.b",
        ] {
            assert!(text.parse::<Addition>().is_err(), "{text}");
        }
    }
}
