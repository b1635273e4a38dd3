use crate::annotation;

/// Why no grant can be made. Each names the annotation or the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    #[error(
        "annotation {key} is not known; the known ones are {}",
        annotation::ALL.join(", ")
    )]
    UnknownAnnotation { key: String },
    #[error("annotation {key}: {value:?}: {problem}")]
    Annotation {
        key: &'static str,
        value: String,
        problem: String,
    },
    #[error("environment variable {name}: {value:?}: {problem}")]
    Variable {
        name: &'static str,
        value: String,
        problem: String,
    },
    #[error("process.args is empty: there is nothing to run; give the image an entrypoint")]
    NoArgs,
    #[error("process.{field}: {value:?}: {problem}")]
    Process {
        field: &'static str,
        value: String,
        problem: &'static str,
    },
}
