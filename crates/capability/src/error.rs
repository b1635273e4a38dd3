use crate::annotation;

/// Why no grant can be made. Each names the annotation or the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    #[error(
        "annotation {key} is not known; the known ones are {} and {}NAME",
        annotation::ALL.join(", "),
        annotation::CONFIG
    )]
    UnknownAnnotation { key: String },
    #[error("annotation {key}: {value:?}: {problem}")]
    Annotation {
        key: &'static str,
        value: String,
        problem: String,
    },
    #[error("annotation {key} is not for pods on this node: its policy lets them use {allowed}")]
    NotTheirs { key: String, allowed: String },
    #[error(
        "annotation {key}: {value:?}: the node's policy grants less; its administrator can raise \
         {setting}"
    )]
    Beyond {
        key: &'static str,
        value: String,
        setting: String,
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
