/// Why code cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("engine: {0}")]
    Engine(String),
    #[error("compiled code: {0}; remove it from the cache directory to have it made again")]
    Artifact(String),
    #[error(
        "unsupported world: the {kind} exports {}; to run, {wants}",
        list(.found)
    )]
    World {
        kind: &'static str,
        found: Vec<String>,
        wants: &'static str,
    },
    #[error("it imports {import}, which is denied: {remedy}")]
    Denied { import: String, remedy: String },
    #[error("an import that nobody provides: {0}")]
    Import(String),
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".into();
    }
    names.join(", ")
}
